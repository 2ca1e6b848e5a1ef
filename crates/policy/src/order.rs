//! In which order VEs start and stop with their node.

use std::collections::BTreeMap;

use ve::{Autostart, Spec, VeId};

/// Groups the VEs that start with the node: each group starts side by side once the one before it
/// is up, smaller numbers of their administrators first. VEs without autostart are left out.
#[must_use]
pub fn start_waves<'a>(specs: impl IntoIterator<Item = &'a Spec>) -> Vec<Vec<VeId>> {
    let mut waves: BTreeMap<u32, Vec<VeId>> = BTreeMap::new();
    for spec in specs {
        if let Autostart::Order(order) = spec.autostart {
            waves.entry(order).or_default().push(spec.id);
        }
    }
    waves.into_values().collect()
}

/// Groups all VEs for a shutdown of the node: the reverse of [`start_waves`], after those that
/// have no place in that order and so cannot be needed by the others.
#[must_use]
pub fn stop_waves<'a>(specs: impl IntoIterator<Item = &'a Spec>) -> Vec<Vec<VeId>> {
    let mut waves: BTreeMap<Option<u32>, Vec<VeId>> = BTreeMap::new();
    for spec in specs {
        let place = match spec.autostart {
            Autostart::Off => None,
            Autostart::Order(order) => Some(u32::MAX - order),
        };
        waves.entry(place).or_default().push(spec.id);
    }
    waves.into_values().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use ve::Name;

    fn spec(number: u32, autostart: Autostart) -> Spec {
        let name = Name::new(&format!("ve-{number}")).unwrap();
        Spec {
            autostart,
            ..Spec::new(VeId::new(number).unwrap(), name.clone(), name, 0)
        }
    }

    #[test]
    fn stopping_is_starting_backwards() {
        let specs = [
            spec(100, Autostart::Order(20)),
            spec(101, Autostart::Off),
            spec(102, Autostart::Order(10)),
            spec(103, Autostart::Order(20)),
        ];
        let numbers = |waves: Vec<Vec<VeId>>| -> Vec<Vec<u32>> {
            waves
                .iter()
                .map(|wave| wave.iter().map(|id| id.get()).collect())
                .collect()
        };
        assert_eq!(numbers(start_waves(&specs)), [vec![102], vec![100, 103]]);
        assert_eq!(
            numbers(stop_waves(&specs)),
            [vec![101], vec![100, 103], vec![102]]
        );
    }
}
