//! What a node writes into a VE's own files before its init runs: who it is, and whom to ask names.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use engine::Fault;
use registry::VeRecord;
use runtime::Facts;
use template::Recipe;
use ve::Spec;

/// What is written into the VE before its init runs: at every start what its administrator decides
/// (name, name servers), at the first one what is its own for life.
pub(crate) fn facts(record: &VeRecord) -> Result<Facts, Fault> {
    let spec = &record.spec;
    let mut facts = Facts {
        hostname: Some(spec.hostname.clone()),
        hosts: Some(hosts(spec)),
        resolv_conf: Some(resolv_conf(spec)?),
        files: options(spec),
        ..Facts::default()
    };
    if let Some(first_boot) = &record.first_boot {
        facts.machine_id = Some(uuid::Uuid::new_v4().simple().to_string());
        facts
            .root_password_hash
            .clone_from(&first_boot.root_password_hash);
        facts.authorized_keys =
            (!first_boot.ssh_keys.is_empty()).then(|| first_boot.ssh_keys.clone());
        facts.ssh_host_keys = true;
    }
    Ok(facts)
}

/// What was chosen of the settings that its applications offer: a file for each application.
fn options(spec: &Spec) -> BTreeMap<String, String> {
    let chosen = spec
        .applications
        .iter()
        .filter(|(_, options)| !options.is_empty());
    chosen
        .map(|(name, options)| (Recipe::options_path(name), Recipe::options_file(options)))
        .collect()
}

fn hosts(spec: &Spec) -> String {
    let mut text = String::from(
        "127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n\
         ff02::1 ip6-allnodes\nff02::2 ip6-allrouters\n",
    );
    let short = spec.hostname.split('.').next().unwrap_or_default();
    let names = if short == spec.hostname {
        short.to_owned()
    } else {
        format!("{} {short}", spec.hostname)
    };
    let own = spec
        .addresses
        .first()
        .map_or("127.0.1.1".to_owned(), ToString::to_string);
    // Writing to a String cannot fail.
    let _ = writeln!(text, "{own} {names}");
    text
}

fn resolv_conf(spec: &Spec) -> Result<String, Fault> {
    let (servers, search) = if spec.dns.is_empty() {
        let resolver = network::resolver::node_dns().map_err(|error| Fault::from_error(&error))?;
        (resolver.servers, resolver.search)
    } else {
        (spec.dns.clone(), Vec::new())
    };
    let mut text = String::new();
    if !search.is_empty() {
        let _ = writeln!(text, "search {}", search.join(" "));
    }
    for server in servers {
        let _ = writeln!(text, "nameserver {server}");
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ve::{Name, VeId};

    fn spec(hostname: &str, address: &str) -> Spec {
        let [name, template] = ["web", "debian-12"].map(|text| Name::new(text).unwrap());
        Spec {
            hostname: hostname.to_owned(),
            addresses: address.parse().into_iter().collect(),
            dns: vec!["192.0.2.53".parse().unwrap()],
            ..Spec::new(VeId::new(100).unwrap(), name, template, 0)
        }
    }

    #[test]
    fn a_ve_knows_its_own_names() {
        let text = hosts(&spec("www.example.org", "10.99.0.2"));
        assert!(text.ends_with("10.99.0.2 www.example.org www\n"), "{text}");
        let text = hosts(&spec("web", ""));
        assert!(text.ends_with("127.0.1.1 web\n"), "{text}");
    }

    #[test]
    fn given_name_servers_are_the_only_ones() {
        let text = resolv_conf(&spec("web", "")).unwrap();
        assert_eq!(text, "nameserver 192.0.2.53\n");
    }
}
