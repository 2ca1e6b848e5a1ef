//! How processor time is divided among VEs that all want all of it, measured by what the kernel counted,
//! in proportions: a machine that is busy otherwise changes all parts alike.

#[cfg(test)]
mod common;

#[cfg(test)]
mod tests {

    use std::time::Duration;

    use cgroup::{Controller, Limits, VeGroup};

    use super::common::*;

    /// Wants more than two processors.
    const HOG: &str = "for i in 1 2 3; do while :; do :; done & done; wait";

    /// What each group used meanwhile, in parts of what all used.
    fn parts(groups: &[&VeGroup], span: Duration) -> Vec<f64> {
        let used = || {
            let used = groups
                .iter()
                .map(|group| group.usage().unwrap().cpu_microseconds);
            used.collect::<Vec<_>>()
        };
        let before = used();
        std::thread::sleep(span);
        #[expect(clippy::cast_precision_loss, reason = "a few seconds in microseconds")]
        let spent: Vec<f64> = used()
            .iter()
            .zip(before)
            .map(|(after, before)| (after - before) as f64)
            .collect();
        let all: f64 = spent.iter().sum();
        spent.iter().map(|spent| spent / all).collect()
    }

    /// Looks several times, as another program may take a processor away for a moment.
    fn settles(what: &str, groups: &[&VeGroup], fine: impl Fn(&[f64]) -> bool) {
        let mut seen = Vec::new();
        for _ in 0..10 {
            let found = parts(groups, Duration::from_millis(1_500));
            if fine(&found) {
                return;
            }
            seen.push(found);
        }
        panic!("{what}: {seen:?}");
    }

    #[test]
    fn three_to_one_gives_three_to_one() {
        let Some(node) = Node::open(60_600) else {
            return;
        };
        let [heavy, light] = [60_601, 60_602].map(|number| node.group.create(id(number)).unwrap());
        heavy.set_cpu_weight(300).unwrap();
        let _hogs = [start(&heavy, HOG), start(&light, HOG)];
        settles("3 to 1", &[&heavy, &light], |parts| {
            (parts[0] / parts[1] - 3.0).abs() < 0.3
        });
        light.set_cpu_weight(300).unwrap();
        settles("1 to 1", &[&heavy, &light], |parts| {
            (parts[0] / parts[1] - 1.0).abs() < 0.1
        });
    }

    #[test]
    fn a_small_weight_is_held_against_many_hogs() {
        let Some(node) = Node::open(60_610) else {
            return;
        };
        let groups: Vec<_> = (60_611..60_616)
            .map(|number| node.group.create(id(number)).unwrap())
            .collect();
        // Half of all for the first: as much as the four others have together.
        groups[0].set_cpu_weight(400).unwrap();
        let _hogs: Vec<_> = groups.iter().map(|group| start(group, HOG)).collect();
        let groups: Vec<_> = groups.iter().collect();
        settles("a half", &groups, |parts| parts[0] > 0.5 * 0.95);
    }

    #[test]
    fn a_burst_is_more_than_the_limit_and_goes_away_with_it() {
        let Some(node) = Node::open(60_620) else {
            return;
        };
        let group = node.group.create(id(60_621)).unwrap();
        for (limit, burst, written) in [
            (Some(500), Some(250), "25000"),
            (Some(200), Some(200), "20000"),
            (Some(100), None, "0"),
            (None, None, "0"),
        ] {
            let limits = Limits {
                cpu_limit_millicores: limit,
                cpu_burst_millicores: burst,
                ..Limits::default()
            };
            let applied = group.apply(&limits);
            assert!(applied.is_complete(), "{:?}", applied.refused);
            let found = value(&group, Controller::Cpu, "cpu.cfs_burst_us", "cpu.max.burst");
            assert_eq!(found, written, "{limit:?} {burst:?}");
        }
        let wrong = Limits {
            cpu_limit_millicores: Some(100),
            cpu_burst_millicores: Some(200),
            ..Limits::default()
        };
        assert_eq!(group.apply(&wrong).refused.len(), 1, "more than the limit");
    }
}
