//! `node.toml`: what was decided when the node was prepared, and by `node set` since. Written whole or
//! not at all, and read at every start.

use std::collections::BTreeMap;
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use ve::{NodeKey, NodeResources, NodeSetting, VeId};

/// VE numbers of one node, and so the most VEs that it can have.
const IDS_PER_NODE: u32 = 4_000;
/// Size of the default loop file. It is sparse: it takes what is written into it.
const POOL_BYTES_DEFAULT: u64 = 40 << 30;
/// The default ranges of addresses, the first that is free: large enough for every number of a node,
/// and seldom used by networks that servers are in.
const NETWORKS_DEFAULT: [&str; 4] = [
    "10.99.0.0/16",
    "10.98.0.0/16",
    "10.97.0.0/16",
    "10.96.0.0/16",
];

/// The decisions of `vessel init`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    /// First number of this node's VEs.
    pub(crate) first_id: u32,
    /// Ranges that VEs get their addresses from.
    pub(crate) networks: Vec<IpNet>,
    /// Whether VEs reach other networks by the node's own address.
    pub(crate) nat: bool,
    /// Where metrics are answered over TCP: `9100`, `0.0.0.0:9100`. Only a port means the loopback address;
    /// nothing, that they are answered on the node's socket only. Written by hand.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) metrics_listen: Option<String>,
    /// Where the pool is.
    pub(crate) pool: PoolConfig,
    /// Settings of `node set`, in its words.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    resources: BTreeMap<String, String>,
}

/// Where the pool is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub(crate) enum PoolConfig {
    /// A sparse file below the root.
    Loop {
        /// Its size when it was made, in bytes.
        size_bytes: u64,
    },
    /// A block device.
    Device {
        /// Its path.
        path: PathBuf,
    },
    /// A folder in a btrfs.
    Folder {
        /// Its path.
        path: PathBuf,
    },
}

/// What `vessel init` may choose.
#[derive(Clone, Debug, Default)]
pub(crate) struct Choices {
    pub(crate) pool_size: Option<String>,
    pub(crate) device: Option<String>,
    pub(crate) pool: Option<String>,
    pub(crate) network: Option<String>,
    pub(crate) first_id: Option<u32>,
}

impl Config {
    /// Reads the configuration of the node at `root`; nothing where the node was not prepared.
    pub(crate) fn load(root: &Path) -> Result<Option<Self>> {
        let path = path(root);
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => {
                return Err(error).with_context(|| format!("cannot read {}", path.display()));
            }
        };
        let config = toml::from_str(&text)
            .with_context(|| format!("{} is damaged; bring back a copy of it", path.display()))?;
        Ok(Some(config))
    }

    /// Writes it so that a crash leaves the old one or the new one.
    pub(crate) fn save(&self, root: &Path) -> Result<()> {
        let path = path(root);
        let text = toml::to_string(self).context("the configuration cannot be written as TOML")?;
        let temporary = path.with_extension("toml.new");
        let write = || {
            let mut file = std::fs::File::create(&temporary)?;
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            std::fs::rename(&temporary, &path)?;
            std::fs::File::open(root)?.sync_all()
        };
        write().with_context(|| format!("cannot write {}", path.display()))
    }

    /// The configuration that these choices make on a node that was not prepared. What is not chosen
    /// is what this host has free: `nodes` are the first numbers of others, `used` its networks.
    pub(crate) fn choose(choices: &Choices, nodes: &[VeId], used: &[IpNet]) -> Result<Self> {
        let first_id = match choices.first_id {
            Some(first_id) => VeId::new(first_id)?,
            None => free_numbers(nodes)?,
        };
        if first_id.get() > VeId::MAX - IDS_PER_NODE {
            let most = VeId::MAX - IDS_PER_NODE;
            bail!("the first number must be at most {most}, so that {IDS_PER_NODE} VEs have one");
        }
        let free = free_network(used);
        let network = choices.network.as_deref().unwrap_or(&free);
        let mut networks = Vec::new();
        for text in network.split(',') {
            networks.push(parse_network(text.trim())?);
        }
        if !networks
            .iter()
            .any(|network| matches!(network, IpNet::V6(_)))
        {
            networks.push(IpNet::V6(network::address::ula(
                *uuid::Uuid::new_v4().as_bytes(),
            )));
        }
        Ok(Self {
            first_id: first_id.get(),
            networks,
            nat: true,
            metrics_listen: None,
            pool: PoolConfig::choose(choices)?,
            resources: BTreeMap::new(),
        })
    }

    /// Whether these choices, as far as they choose, are what this configuration has.
    pub(crate) fn differs_from(&self, choices: &Choices) -> Result<Option<String>> {
        if let Some(first_id) = choices.first_id
            && first_id != self.first_id
        {
            return Ok(Some(format!("its VEs are numbered from {}", self.first_id)));
        }
        if let Some(network) = &choices.network {
            for text in network.split(',') {
                if !self.networks.contains(&parse_network(text.trim())?) {
                    return Ok(Some(format!("its networks are {}", join(&self.networks))));
                }
            }
        }
        let chosen =
            choices.pool_size.is_some() || choices.device.is_some() || choices.pool.is_some();
        if chosen && PoolConfig::choose(choices)? != self.pool {
            return Ok(Some(format!("its pool is {}", self.pool)));
        }
        Ok(None)
    }

    /// What the node keeps for itself, and how much it sells.
    pub(crate) fn resources(&self) -> Result<NodeResources> {
        let written = self
            .resources
            .iter()
            .map(|(key, value)| format!("{key}={value}"));
        let settings = NodeSetting::parse_all(&written.collect::<Vec<_>>())
            .context("`resources` of node.toml cannot be used")?;
        let mut resources = NodeResources::default();
        settings.iter().for_each(|setting| resources.apply(setting));
        Ok(resources)
    }

    /// Replaces that.
    pub(crate) fn set_resources(&mut self, resources: &NodeResources) {
        let set = NodeKey::ALL
            .into_iter()
            .filter_map(|key| Some((key, key.value_in(resources)?)));
        self.resources = set.map(|(key, value)| (key.to_string(), value)).collect();
    }

    /// First number of this node's VEs.
    pub(crate) fn first(&self) -> Result<VeId> {
        Ok(VeId::new(self.first_id)?)
    }

    /// Last number of this node's VEs.
    pub(crate) fn last(&self) -> Result<VeId> {
        Ok(VeId::new(
            (self.first_id + IDS_PER_NODE - 1).min(VeId::MAX),
        )?)
    }
}

/// The first numbers that no other node of this host has.
fn free_numbers(nodes: &[VeId]) -> Result<VeId> {
    let starts = (VeId::MIN..=VeId::MAX - IDS_PER_NODE).step_by(IDS_PER_NODE as usize);
    let free = |start: &u32| {
        !nodes
            .iter()
            .any(|node| start.abs_diff(node.get()) < IDS_PER_NODE)
    };
    let Some(first) = starts.into_iter().find(free) else {
        bail!("other nodes of this host have all numbers");
    };
    Ok(VeId::new(first)?)
}

/// The first default range that the host does not use; the very first when it uses all of them.
fn free_network(used: &[IpNet]) -> String {
    let free = |range: &IpNet| {
        !used
            .iter()
            .any(|used| used.contains(range) || range.contains(used))
    };
    let mut ranges = NETWORKS_DEFAULT.iter().filter_map(|text| text.parse().ok());
    let range = ranges.find(free);
    range.map_or_else(|| NETWORKS_DEFAULT[0].to_owned(), |range| range.to_string())
}

impl PoolConfig {
    fn choose(choices: &Choices) -> Result<Self> {
        let given = [&choices.pool_size, &choices.device, &choices.pool];
        if given.iter().filter(|choice| choice.is_some()).count() > 1 {
            bail!("choose one of --pool-size, --device and --pool");
        }
        Ok(match (&choices.device, &choices.pool, &choices.pool_size) {
            (Some(path), _, _) => Self::Device {
                path: absolute(path)?,
            },
            (_, Some(path), _) => Self::Folder {
                path: absolute(path)?,
            },
            (_, _, Some(size)) => Self::Loop {
                size_bytes: size.parse::<ve::Bytes>()?.get(),
            },
            _ => Self::Loop {
                size_bytes: POOL_BYTES_DEFAULT,
            },
        })
    }
}

impl std::fmt::Display for PoolConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Loop { size_bytes } => {
                write!(f, "a file of {}", ve::Bytes::new(*size_bytes))
            }
            Self::Device { path } => write!(f, "the device {}", path.display()),
            Self::Folder { path } => write!(f, "the folder {}", path.display()),
        }
    }
}

/// The address that a port, or an address with a port, means.
pub(crate) fn listen_address(text: &str) -> Result<SocketAddr> {
    if let Ok(port) = text.parse::<u16>() {
        return Ok(SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
    }
    text.parse().ok().with_context(|| {
        format!("`{text}` is nowhere to listen; write it as 9100, 127.0.0.1:9100 or [::]:9100")
    })
}

fn path(root: &Path) -> PathBuf {
    root.join("node.toml")
}

fn absolute(path: &str) -> Result<PathBuf> {
    let path = PathBuf::from(path);
    if !path.is_absolute() {
        bail!("`{}` is not an absolute path", path.display());
    }
    Ok(path)
}

fn parse_network(text: &str) -> Result<IpNet> {
    let network: IpNet = text
        .parse()
        .ok()
        .with_context(|| format!("`{text}` is not a network; write it as 10.99.0.0/16"))?;
    if network != network.trunc() {
        bail!(
            "`{text}` has host bits set; its network is {}",
            network.trunc()
        );
    }
    let address = network.addr();
    if address.is_loopback() || address.is_multicast() || network.prefix_len() < 8 {
        bail!("`{text}` is not a network of hosts");
    }
    Ok(network)
}

fn join(networks: &[IpNet]) -> String {
    networks
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(change: impl FnOnce(&mut Choices)) -> Result<Config> {
        let mut choices = Choices::default();
        change(&mut choices);
        Config::choose(&choices, &[], &[])
    }

    #[test]
    fn a_saved_configuration_reads_back() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(Config::load(root.path()).unwrap(), None);
        let config = Config::choose(&Choices::default(), &[], &[]).unwrap();
        config.save(root.path()).unwrap();
        assert_eq!(Config::load(root.path()).unwrap(), Some(config.clone()));
        assert_eq!(config.differs_from(&Choices::default()).unwrap(), None);
    }

    #[test]
    fn what_is_not_chosen_is_what_is_free() {
        let id = |number| VeId::new(number).unwrap();
        let choose = |nodes: &[u32], used: &[&str]| {
            let nodes: Vec<VeId> = nodes.iter().map(|number| id(*number)).collect();
            let used: Vec<IpNet> = used.iter().map(|range| range.parse().unwrap()).collect();
            let config = Config::choose(&Choices::default(), &nodes, &used).unwrap();
            (config.first_id, config.networks[0].to_string())
        };
        assert_eq!(choose(&[], &[]), (100, "10.99.0.0/16".to_owned()));
        assert_eq!(
            choose(&[5_000, 100], &["10.99.7.0/24"]),
            (12_100, "10.98.0.0/16".to_owned())
        );
        let all = ["10.0.0.0/8"];
        assert_eq!(choose(&[50_000], &all).1, "10.99.0.0/16");
        let nodes: Vec<VeId> = (0..17).map(|n| id(100 + n * 4_000)).collect();
        assert!(Config::choose(&Choices::default(), &nodes, &[]).is_err());
    }

    #[test]
    fn resources_are_kept_in_words() {
        let root = tempfile::tempdir().unwrap();
        let mut config = Config::choose(&Choices::default(), &[], &[]).unwrap();
        let settings = NodeSetting::parse_all(&["cpu.reserve=0.5", "network.capacity=1Gbit"]);
        let mut resources = NodeResources::default();
        settings
            .unwrap()
            .iter()
            .for_each(|setting| resources.apply(setting));
        config.set_resources(&resources);
        config.save(root.path()).unwrap();
        let text = std::fs::read_to_string(path(root.path())).unwrap();
        assert!(text.contains("\"network.capacity\" = \"1Gbit\""), "{text}");
        let loaded = Config::load(root.path()).unwrap().unwrap();
        assert_eq!(loaded.resources().unwrap(), resources);
        std::fs::write(
            path(root.path()),
            text.replace("cpu.reserve", "cpu.reserves"),
        )
        .unwrap();
        let loaded = Config::load(root.path()).unwrap().unwrap();
        let error = format!("{:#}", loaded.resources().unwrap_err());
        assert!(error.contains("did you mean `cpu.reserve`?"), "{error}");
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let refused = |change: &dyn Fn(&mut Choices)| with(change).unwrap_err().to_string();
        assert!(refused(&|c| c.network = Some("10.0.0.1/8".into())).contains("host bits"));
        assert!(refused(&|c| c.network = Some("banana".into())).contains("not a network"));
        assert!(refused(&|c| c.network = Some("127.0.0.0/8".into())).contains("of hosts"));
        assert!(refused(&|c| c.device = Some("sdb".into())).contains("absolute"));
        assert!(refused(&|c| c.first_id = Some(65_000)).contains("at most"));
        assert!(refused(&|c| c.pool_size = Some("big".into())).contains("not a size"));
        let both = |c: &mut Choices| {
            c.pool_size = Some("4G".into());
            c.device = Some("/dev/sdb".into());
        };
        assert!(refused(&both).contains("choose one"));
    }

    #[test]
    fn a_port_alone_is_on_the_loopback_address() {
        let of = |text: &str| listen_address(text).map(|address| address.to_string());
        assert_eq!(of("9100").unwrap(), "127.0.0.1:9100");
        assert_eq!(of("0.0.0.0:9100").unwrap(), "0.0.0.0:9100");
        assert_eq!(of("[::]:9100").unwrap(), "[::]:9100");
        for text in ["localhost", "70000", "10.0.0.1", ""] {
            assert!(
                of(text).unwrap_err().to_string().contains("nowhere"),
                "{text}"
            );
        }
    }

    #[test]
    fn other_choices_on_a_prepared_node_are_seen() {
        let config = Config::choose(&Choices::default(), &[], &[]).unwrap();
        let choices = Choices {
            pool_size: Some("8G".into()),
            ..Choices::default()
        };
        assert!(
            config
                .differs_from(&choices)
                .unwrap()
                .unwrap()
                .contains("40G")
        );
    }
}
