//! What is told when, over all histories of a value.

use super::*;
use proptest::prelude::*;

fn rule(for_seconds: u64, resolve_seconds: u64, repeat_seconds: u64) -> Rule {
    Rule {
        condition: Condition::parse("x > 10", &["x"]).unwrap(),
        for_seconds,
        resolve_seconds,
        repeat_seconds,
        scope: Scope::default(),
    }
}

/// What is told, at which time, of readings (value, silenced) every ten seconds.
fn told(rule: &Rule, readings: &[(Option<f64>, bool)]) -> Vec<(u64, Telling)> {
    let mut standing = None;
    let mut told = Vec::new();
    for (at, (value, silenced)) in readings.iter().enumerate() {
        let now = 1_000 + 10 * u64::try_from(at).unwrap();
        let (next, telling) = look(rule, standing, *value, *silenced, now);
        standing = next;
        told.extend(telling.map(|telling| (now - 1_000, telling)));
    }
    told
}

fn high(count: usize) -> Vec<(Option<f64>, bool)> {
    vec![(Some(11.0), false); count]
}

fn low(count: usize) -> Vec<(Option<f64>, bool)> {
    vec![(Some(1.0), false); count]
}

#[test]
fn fires_after_its_time_once_and_is_over_after_its_time() {
    let readings = [high(7), low(10)].concat();
    assert_eq!(
        told(&rule(30, 60, 3_600), &readings),
        [(30, Telling::Firing), (130, Telling::Resolved)]
    );
    // Too short.
    assert_eq!(told(&rule(80, 60, 3_600), &readings), []);
    // A VE that stops meets nothing any more.
    let readings = [high(7), vec![(None, false); 10]].concat();
    assert_eq!(told(&rule(0, 60, 3_600), &readings).len(), 2);
}

#[test]
fn still_fires_is_told_in_intervals() {
    let times: Vec<u64> = told(&rule(0, 60, 600), &high(130))
        .iter()
        .map(|(at, _)| *at)
        .collect();
    assert_eq!(times, [0, 600, 1_200]);
}

#[test]
fn what_is_silenced_is_told_when_it_still_fires_afterwards() {
    let silenced = vec![(Some(11.0), true); 5];
    assert_eq!(
        told(&rule(0, 0, 3_600), &[silenced.clone(), high(2)].concat()),
        [(50, Telling::Firing)]
    );
    assert_eq!(told(&rule(0, 0, 3_600), &[silenced, low(2)].concat()), []);
}

#[test]
fn a_scope_wants_one_name_and_all_labels() {
    let labels: BTreeMap<String, String> = [("tier", "app"), ("team", "shop")]
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .into();
    let scope = |names: &[&str], wanted: &[(&str, Option<&str>)]| Scope {
        names: names.iter().map(|&name| name.to_owned()).collect(),
        labels: wanted
            .iter()
            .map(|(key, value)| ((*key).to_owned(), value.map(str::to_owned)))
            .collect(),
    };
    assert!(scope(&[], &[]).holds("web", &labels));
    assert!(scope(&["db", "web"], &[("tier", None)]).holds("web", &labels));
    assert!(!scope(&["db"], &[]).holds("web", &labels));
    assert!(!scope(&[], &[("tier", Some("app")), ("team", Some("x"))]).holds("web", &labels));
}

proptest! {
    /// Whatever a value does, nobody is flooded, and every begin that was told has its end.
    #[test]
    fn nobody_is_flooded_and_no_end_comes_without_a_begin(
        readings in prop::collection::vec((prop::option::of(0.0_f64..20.0), prop::bool::weighted(0.2)), 0..400),
        for_seconds in 0_u64..60, resolve_seconds in 0_u64..60, repeat_seconds in 0_u64..1_000,
    ) {
        let told = told(&rule(for_seconds, resolve_seconds, repeat_seconds), &readings);
        let begins: Vec<u64> = told.iter().filter(|(_, t)| *t != Telling::Resolved).map(|(at, _)| *at).collect();
        prop_assert!(begins.windows(2).all(|pair| pair[1] - pair[0] >= FLAP_SECONDS), "{told:?}");
        let mut open = false;
        for (_, telling) in &told {
            match telling {
                Telling::Firing => { prop_assert!(!open); open = true; }
                Telling::Again => prop_assert!(open),
                Telling::Resolved => { prop_assert!(open); open = false; }
            }
        }
    }

    /// What holds long enough is told, whatever was before.
    #[test]
    fn what_holds_long_enough_is_told(
        before in prop::collection::vec((prop::option::of(0.0_f64..20.0), any::<bool>()), 0..100),
        for_seconds in 0_u64..200,
    ) {
        let rule = rule(for_seconds, 30, 3_600);
        let span = usize::try_from((for_seconds + FLAP_SECONDS) / 10 + 2).unwrap();
        let told = told(&rule, &[before, high(span)].concat());
        let begun = told.iter().rev().find(|(_, t)| *t != Telling::Again).map(|(_, t)| *t);
        prop_assert_eq!(begun, Some(Telling::Firing), "{:?}", told);
    }
}
