//! Limits for tests, from the words that people write.

use ve::{Limits, Name, Setting, Spec, VeId};

/// Puts a setting into limits.
pub(crate) fn apply(limits: &mut Limits, setting: &Setting) {
    let name = Name::new("a").unwrap();
    let mut spec = Spec {
        limits: limits.clone(),
        ..Spec::new(VeId::new(100).unwrap(), name.clone(), name, 0)
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
