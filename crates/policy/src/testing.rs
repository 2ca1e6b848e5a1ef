//! Limits for tests, from the words that people write.

use std::collections::BTreeMap;

use ve::{Autostart, Limits, Name, Setting, Spec, VeId};

/// Puts a setting into limits.
pub(crate) fn apply(limits: &mut Limits, setting: &Setting) {
    let name = Name::new("a").unwrap();
    let mut spec = Spec {
        id: VeId::new(100).unwrap(),
        template: name.clone(),
        applications: std::collections::BTreeMap::new(),
        template_version: String::new(),
        hostname: String::new(),
        name,
        addresses: Vec::new(),
        dns: Vec::new(),
        limits: limits.clone(),
        labels: BTreeMap::new(),
        autostart: Autostart::Off,
        protected: false,
        nesting: false,
        memory_merge: false,
        owner: None,
        description: None,
        created: 0,
    };
    spec.apply(setting);
    *limits = spec.limits;
}

/// Limits out of assignments.
pub(crate) fn limits(texts: &[&str]) -> Limits {
    let mut limits = Limits::default();
    for setting in Setting::parse_all(texts).unwrap() {
        apply(&mut limits, &setting);
    }
    limits
}
