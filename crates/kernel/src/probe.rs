//! What this host can do, found out once by trying it.
//!
//! For the daemon, which refuses by name what cannot work, chooses between two ways where kernels
//! differ ([`Features::overlay_profile`]), and shows everything to people (`vessel doctor`). The rows
//! are data: [`TABLE`] says for each feature what it is for, what is lost without it and how to get
//! it; a trial says what was found.
//!
//! Trials are real where they are cheap: a file system is opened (which loads its module), an
//! overlay is made of empty directories and dropped, a link and an nft table are made in a network
//! namespace that ends with the trial. The rest reads `/proc` and `/sys`. Nothing is left behind, but for
//! modules that the kernel loaded and a node needs anyway. All trials together take some 20 ms.
//!
//! Not here: the state of a node (its pool, its launcher, its range of addresses).

mod network;
mod table;
mod trials;

use std::fmt;
use std::str::FromStr;

pub use table::{Description, TABLE};

/// Oldest kernel that Vessel runs on: file-backed erofs came with it, and every feature without a
/// row of its own (idmapped mounts of every layer, simple quotas, `CLONE_INTO_CGROUP`, detached mounts,
/// `cgroup.kill`, pidfds) with it or earlier.
pub const KERNEL_MINIMUM: Version = Version {
    major: 6,
    minor: 12,
};

/// A kernel's version, as far as features depend on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version {
    /// The first number.
    pub major: u32,
    /// The second.
    pub minor: u32,
}

/// What can be asked for. The order is that of [`TABLE`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(missing_docs, reason = "the table describes each")]
pub enum FeatureName {
    Kernel,
    Root,
    ResourceLimits,
    ControlGroups,
    Controllers,
    DeviceProgram,
    UserNamespaces,
    Seccomp,
    Btrfs,
    SimpleQuotas,
    LoopDevices,
    Erofs,
    Overlay,
    Veth,
    Nftables,
    Ipv6,
    Tun,
    Fuse,
    PidfdExitStatus,
    Pressure,
    SamePageMerging,
    CheckpointRestore,
    MakeBtrfs,
    Nft,
    Mmdebstrap,
    Xz,
    Zstd,
    Unsquashfs,
    Criu,
    ProcessNumbers,
    InotifyInstances,
    Terminals,
    Keys,
    OpenFiles,
    TrackedConnections,
}

/// What was found of a feature.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Status {
    /// It works.
    Present,
    /// It works in part; the detail says how far.
    Limited,
    /// It does not work.
    Missing,
}

/// Whether a node can do without a feature.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Need {
    /// No VE runs without it.
    Needed,
    /// What is lost is in [`Description::loss`].
    Optional,
}

/// What was found: one row of `vessel doctor`.
#[derive(Clone, Debug)]
pub struct Feature {
    /// What it is, what is lost without it, how to get it.
    pub description: &'static Description,
    /// What was found.
    pub status: Status,
    /// What was found, in words: a version, a mode, the kernel's refusal.
    pub detail: String,
}

/// The result of one trial.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What was found.
    pub status: Status,
    /// The same in words.
    pub detail: String,
}

/// How a VE's overlay is mounted, depending on the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum OverlayProfile {
    /// `index=on,nfs_export=on,xino=on,redirect_dir=on`: file handles work, so that inotify can be
    /// checkpointed. From kernel 6.16 on.
    NfsExport,
    /// `metacopy=on,index=on,xino=on,redirect_dir=on`: older kernels want `metacopy` for data-only
    /// layers, and that excludes `nfs_export`.
    Metacopy,
}

/// Everything that was found on this host.
#[derive(Clone, Debug)]
pub struct Features {
    rows: Vec<Feature>,
    overlay_profile: Option<OverlayProfile>,
}

/// Features that a node needs and this host lacks.
#[derive(Clone, Debug, thiserror::Error)]
#[error("this host cannot run VEs: {}", .missing.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
pub struct MissingFeatures {
    /// What is missing, each needed.
    pub missing: Vec<Feature>,
}

impl Features {
    /// Tries everything. Some 20 ms, most of them in `nft`.
    #[must_use]
    pub fn probe() -> Self {
        let mut overlay_profile = None;
        let rows = TABLE.iter().map(|description| {
            let finding = match description.feature {
                FeatureName::Overlay => {
                    let (profile, finding) = trials::overlay();
                    overlay_profile = profile;
                    finding
                }
                _ => (description.trial)(),
            };
            Feature {
                description,
                status: finding.status,
                detail: finding.detail,
            }
        });
        let rows = rows.collect();
        Self {
            rows,
            overlay_profile,
        }
    }

    /// All rows, in the order of [`TABLE`].
    #[must_use]
    pub fn rows(&self) -> &[Feature] {
        &self.rows
    }

    /// What was found of one feature.
    #[must_use]
    pub fn get(&self, name: FeatureName) -> Option<&Feature> {
        self.rows.iter().find(|row| row.description.feature == name)
    }

    /// Whether a feature works, at least in part.
    #[must_use]
    pub fn has(&self, name: FeatureName) -> bool {
        self.get(name)
            .is_some_and(|row| row.status != Status::Missing)
    }

    /// How to mount overlays here. `None` when no way works.
    #[must_use]
    pub fn overlay_profile(&self) -> Option<OverlayProfile> {
        self.overlay_profile
    }

    /// Refuses a host that lacks something a node needs.
    ///
    /// # Errors
    /// Names everything that is missing, with what to do.
    pub fn require_needed(&self) -> Result<(), MissingFeatures> {
        let missing: Vec<_> = self
            .rows
            .iter()
            .filter(|row| row.stops_the_node())
            .cloned()
            .collect();
        if missing.is_empty() {
            Ok(())
        } else {
            Err(MissingFeatures { missing })
        }
    }
}

impl Feature {
    /// Whether no VE can run because of this row.
    #[must_use]
    pub fn stops_the_node(&self) -> bool {
        self.status == Status::Missing && self.description.need == Need::Needed
    }
}

impl fmt::Display for Feature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Description { name, remedy, .. } = self.description;
        write!(f, "{name}: {} ({})", self.detail, remedy)
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Present => "ok",
            Self::Limited => "limited",
            Self::Missing => "missing",
        })
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// A release name that does not begin with two numbers.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{given}` is not the release of a kernel")]
pub struct InvalidVersion {
    given: String,
}

impl FromStr for Version {
    type Err = InvalidVersion;

    /// Reads the beginning of a release as `uname -r` prints it, such as `6.12.48+deb13-amd64`.
    fn from_str(release: &str) -> Result<Self, InvalidVersion> {
        let invalid = || InvalidVersion {
            given: release.to_owned(),
        };
        let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse);
        match (numbers.next(), numbers.next()) {
            (Some(Ok(major)), Some(Ok(minor))) => Ok(Self { major, minor }),
            _ => Err(invalid()),
        }
    }
}

impl Finding {
    fn present(detail: impl Into<String>) -> Self {
        Self {
            status: Status::Present,
            detail: detail.into(),
        }
    }

    fn limited(detail: impl Into<String>) -> Self {
        Self {
            status: Status::Limited,
            detail: detail.into(),
        }
    }

    fn missing(detail: impl Into<String>) -> Self {
        Self {
            status: Status::Missing,
            detail: detail.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_and_compared() {
        let version = |text: &str| text.parse::<Version>().unwrap();
        assert_eq!(version("6.12.48+deb13-amd64"), KERNEL_MINIMUM);
        assert!(version("6.1.0-40") < KERNEL_MINIMUM && version("7.0") > KERNEL_MINIMUM);
        assert!(version("10.2-rc1") > version("6.18.44"));
        for text in ["", "6", "six.1", "6.x"] {
            assert!(text.parse::<Version>().is_err(), "{text}");
        }
    }

    #[test]
    fn the_table_is_complete_and_in_order() {
        assert!(TABLE.windows(2).all(|two| two[0].feature < two[1].feature));
        for row in &TABLE {
            assert!(!row.name.is_empty() && !row.loss.is_empty() && !row.remedy.is_empty());
        }
        assert_eq!(TABLE.len(), FeatureName::TrackedConnections as usize + 1);
    }

    #[test]
    fn this_host() {
        let begin = std::time::Instant::now();
        let features = Features::probe();
        let took = begin.elapsed();
        for row in features.rows() {
            println!(
                "{:<28} {:<8} {}",
                row.description.name, row.status, row.detail
            );
        }
        println!("took {} us", took.as_micros());
        if !rustix::process::geteuid().is_root() {
            println!("not asserted: trials need root");
            return;
        }
        assert!(
            features.require_needed().is_ok(),
            "{:?}",
            features.require_needed()
        );
        assert!(features.overlay_profile().is_some());
        // 20 ms when idle. Generous, for a machine that is busy with other tests, or emulated.
        let slowness = std::env::var("VESSEL_SLOWNESS")
            .ok()
            .and_then(|text| text.parse().ok());
        assert!(took.as_millis() < 1_000 * slowness.unwrap_or(1), "{took:?}");
    }

    #[test]
    fn a_refusal_names_what_is_missing_and_what_to_do() {
        let mut features = Features {
            rows: Vec::new(),
            overlay_profile: None,
        };
        features.rows.push(Feature {
            description: &TABLE[0],
            status: Status::Missing,
            detail: "this is 6.1, and 6.12 is the oldest that works".to_owned(),
        });
        let text = features.require_needed().unwrap_err().to_string();
        assert!(
            text.contains("6.12") && text.contains(TABLE[0].remedy),
            "{text}"
        );
    }
}
