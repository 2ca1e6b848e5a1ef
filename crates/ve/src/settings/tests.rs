//! What each key takes, and how the rest is refused.

use super::*;
use proptest::prelude::*;

#[test]
fn reads_every_key() {
    for (text, setting) in [
        (
            "cpu.limit=0.5",
            Setting::CpuLimit(Some(Cores::from_thousandths(500))),
        ),
        ("cpu.limit=none", Setting::CpuLimit(None)),
        ("cpu.share=300", Setting::CpuShare(Some(300))),
        (
            "memory.limit=512M",
            Setting::MemoryLimit(Some(Bytes::from_mebibytes(512))),
        ),
        (
            "cpu.guarantee=50%",
            Setting::CpuGuarantee(Some(Cores::from_thousandths(500))),
        ),
        (
            "io.read.limit=10M/s",
            Setting::IoReadLimit(Some(Bytes::from_mebibytes(10))),
        ),
        (
            "io.write.ops=200iops",
            Setting::IoWriteOperations(Some(Operations::new(200))),
        ),
        (
            "network.limit=10Mbit",
            Setting::NetworkLimit(Some(Bits::new(10_000_000))),
        ),
        (
            "memory.grow.threshold=75%",
            Setting::MemoryGrowThreshold(Some(Percent::new(75))),
        ),
        (
            "memory.grow.give-back=10m",
            Setting::MemoryGrowGiveBack(Some(Seconds::new(600))),
        ),
        ("files.limit=1024", Setting::FilesLimit(Some(1_024))),
        ("processes.limit=200", Setting::ProcessesLimit(Some(200))),
        ("address=auto", Setting::AddressAuto),
        ("address=none", Setting::Addresses(Vec::new())),
        (
            "hostname=www.example.org",
            Setting::Hostname("www.example.org".into()),
        ),
        ("autostart=yes", Setting::Autostart(Autostart::Order(100))),
        ("autostart=7", Setting::Autostart(Autostart::Order(7))),
        ("protected=no", Setting::Protected(false)),
    ] {
        assert_eq!(Setting::parse(text).unwrap(), setting, "{text}");
    }
}

#[test]
fn refusals_name_key_and_rule() {
    for (text, words) in [
        ("memory.limit", "is not KEY=VALUE"),
        ("memory.limt=1G", "did you mean `memory.limit`?"),
        ("colour=red", "the keys are"),
        ("memory.limit=5Mbit", "`5Mbit` is not a size"),
        ("memory.limit=1", "at least 4M"),
        ("memory.limit=-1", "not a size"),
        ("memory.limit=0", "at least 4M"),
        ("memory.limit=1000000000000000000000000000000", "below 2^63"),
        ("memory.guarantee=1", "at least 4M"),
        (
            "memory.grow.celing=1G",
            "did you mean `memory.grow.ceiling`?",
        ),
        ("memory.grow.step=1K", "at least 1M"),
        ("memory.grow.threshold=80", "write it as 80%"),
        ("memory.grow.threshold=100%", "from 50% to 95%"),
        ("memory.grow.cooldown=soon", "a span of time"),
        ("memory.grow.give-back=0s", "at least 1s"),
        ("cpu.guarantee=-1", "amount of CPU"),
        ("io.share=0", "from 1 to 1000"),
        ("io.read.limit=5Mbit", "not a size"),
        ("io.read.ops=1", "at least 10iops"),
        ("network.limit=10M", "write it as 500Kbit"),
        ("network.limit=1bit", "at least 64Kbit"),
        (
            "network.garantee=1Mbit",
            "did you mean `network.guarantee`?",
        ),
        ("files.limit=1", "from 64"),
        ("processes.limit=0", "whole number from 1"),
        ("cpu.share=20000", "from 1 to 10000"),
        ("address=10.0.0.300", "not an IPv4 or IPv6 address"),
        ("address=127.0.0.1", "not the address of one host"),
        ("address=10.0.0.1,10.0.0.1", "twice"),
        ("dns=1.1.1.1,1.1.1.2,1.1.1.3,1.1.1.4", "more than 3"),
        ("hostname=-x", "not a host name"),
        ("protected=maybe", "`yes` or `no`"),
    ] {
        let message = Setting::parse(text).unwrap_err().to_string();
        let shown = message.contains(words)
            || std::error::Error::source(&Setting::parse(text).unwrap_err())
                .is_some_and(|source| source.to_string().contains(words));
        assert!(shown, "{text}: {message}");
    }
}

#[test]
fn a_key_given_twice_is_refused() {
    let error = Setting::parse_all(&["cpu.share=1", "cpu.share=2"]).unwrap_err();
    assert_eq!(error, InvalidSetting::Twice { key: "cpu.share" });
}

proptest! {
    #[test]
    fn no_assignment_panics(text in "\\PC*") {
        let _ = Setting::parse(&text);
        for key in Key::ALL {
            let _ = Setting::parse(&format!("{key}={text}"));
        }
    }
}

#[test]
fn what_is_shown_of_a_ve_can_be_set_again() {
    let settings = Setting::parse_all(&[
        "cpu.guarantee=0.5",
        "cpu.burst=20%",
        "memory.burst=1.5G",
        "memory.grow.ceiling=4G",
        "memory.grow.threshold=85%",
        "memory.grow.cooldown=90s",
        "io.read.limit=10M",
        "io.write.ops=200",
        "network.guarantee=1.5Mbit",
        "files.limit=4096",
    ]);
    let mut limits = crate::Limits::default();
    let [name, template] = ["a", "t"].map(|text| crate::Name::new(text).unwrap());
    let mut spec = crate::Spec {
        limits: limits.clone(),
        ..crate::Spec::new(crate::VeId::new(100).unwrap(), name, template, 0)
    };
    for setting in settings.unwrap() {
        spec.apply(&setting);
        let (key, shown) = (setting.key(), setting.key().value_in(&spec).unwrap());
        assert_eq!(Setting::parse(&format!("{key}={shown}")).unwrap(), setting);
        assert_eq!(key.limit_in(&limits), None);
    }
    limits.clone_from(&spec.limits);
    assert_eq!(
        Key::IoWriteOperations.limit_in(&limits).as_deref(),
        Some("200iops")
    );
}

#[test]
fn a_node_has_keys_of_its_own() {
    let words = [
        "cpu.reserve=0.2",
        "memory.overcommit=1.5",
        "network.capacity=1Gbit",
    ];
    let mut resources = NodeResources::default();
    for setting in NodeSetting::parse_all(&words).unwrap() {
        resources.apply(&setting);
    }
    let shown = NodeKey::ALL.map(|key| key.value_in(&resources).unwrap_or_default());
    assert_eq!(shown, ["0.2", "", "", "1.5", "", "", "1Gbit", ""]);
    resources.apply(&NodeSetting::parse_all(&["cpu.reserve="]).unwrap()[0]);
    assert_eq!(resources.cpu_reserve, None);
    for (text, words) in [
        ("cpu.reserv=1", "did you mean `cpu.reserve`?"),
        ("memory.reserve=1", "at least 64M"),
        ("cpu.overcommit=0.5", "from 1 to 1000"),
        ("cpu.reserve", "not KEY=VALUE"),
    ] {
        let error = NodeSetting::parse_all(&[text]).unwrap_err();
        let source = std::error::Error::source(&error).map(ToString::to_string);
        let text = format!("{error}: {}", source.unwrap_or_default());
        assert!(text.contains(words), "{text}");
    }
}
