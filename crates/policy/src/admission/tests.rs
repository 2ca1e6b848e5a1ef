//! What is sold never exceeds what there is, and refusals show the sum.

use proptest::prelude::*;
use ve::NodeSetting;

use super::*;
use crate::testing::limits;

fn node(cores: u32, memory: &str, settings: &[&str]) -> NodeCapacity {
    let mut resources = NodeResources::default();
    for setting in NodeSetting::parse_all(settings).unwrap() {
        resources.apply(&setting);
    }
    NodeCapacity {
        has: Capacity {
            cpu: Cores::from_thousandths(cores * 1_000),
            memory: memory.parse().unwrap(),
            disk: "100G".parse().unwrap(),
        },
        resources,
    }
}

fn refusal(
    node: &NodeCapacity,
    wanted: &[&str],
    held: Option<&[&str]>,
    others: &[&[&str]],
) -> String {
    let others: Vec<_> = others.iter().map(|texts| limits(texts)).collect();
    let others: Vec<_> = others.iter().collect();
    let held = held.map(limits);
    match node.admit(&limits(wanted), held.as_ref(), &others) {
        Ok(()) => String::new(),
        Err(denied) => denied.to_string(),
    }
}

#[test]
fn a_node_keeps_a_twentieth_for_itself() {
    let large = node(64, "256G", &["network.capacity=10Gbit"]);
    assert_eq!(large.cpu_for_ves().to_string(), "60.8");
    assert_eq!(large.memory_reserve().get(), (256 << 30) / 20);
    assert_eq!(large.network_for_ves(), Some(Bits::new(9_500_000_000)));
    let small = node(1, "1G", &[]);
    assert_eq!(small.cpu_for_ves().to_string(), "0.9");
    assert_eq!(small.memory_for_ves().to_string(), "768M");
    assert_eq!(small.network_for_ves(), None);
    let all = node(2, "1G", &["cpu.reserve=8", "memory.reserve=4G"]);
    assert_eq!(all.cpu_for_ves().thousandths(), 0);
    assert_eq!(all.memory_for_ves().get(), 0);
}

#[test]
fn refusals_show_the_arithmetic() {
    let two = node(2, "4G", &[]);
    let other = &["cpu.guarantee=1.5", "memory.guarantee=3G"][..];
    assert_eq!(
        refusal(&two, &["cpu.guarantee=0.6"], None, &[other, &[]]),
        "cpu.guarantee: 0.6 processors is asked for, and 0.4 processors is left: 2 processors less \
         0.1 processors for the node itself less 1.5 processors guaranteed to 1 other running VE"
    );
    assert!(refusal(&two, &["memory.guarantee=1G"], None, &[other]).contains("less 3G guaranteed"));
    assert_eq!(refusal(&two, &["cpu.guarantee=0.4"], None, &[other]), "");
    assert!(refusal(&two, &["cpu.guarantee=2"], None, &[]).contains("to no running VE"));
    assert!(refusal(&two, &["network.guarantee=1Mbit"], None, &[]).contains("how fast"));
}

#[test]
fn who_asks_for_no_more_is_not_refused() {
    // The node shrank below what it has promised.
    let one = node(1, "4G", &[]);
    let other = &["cpu.guarantee=1"][..];
    let held = Some(&["cpu.guarantee=0.5"][..]);
    assert_eq!(refusal(&one, &["cpu.guarantee=0.4"], held, &[other]), "");
    assert_ne!(refusal(&one, &["cpu.guarantee=0.6"], held, &[other]), "");
}

#[test]
fn overcommitment_is_bounded_where_it_is_set() {
    let free = node(2, "4G", &[]);
    assert_eq!(refusal(&free, &["memory.limit=400G"], None, &[&[]]), "");
    let bound = node(2, "4G", &["memory.overcommit=2", "memory.reserve=1G"]);
    let other = &["memory.limit=4G"][..];
    assert_eq!(refusal(&bound, &["memory.limit=2G"], None, &[other]), "");
    assert_eq!(
        refusal(&bound, &["memory.limit=2.5G"], None, &[other]),
        "memory.limit: 2.5G is asked for, and 2G is left: 3G with an overcommitment of 2 less 4G \
         given to 1 other VE"
    );
    assert!(
        refusal(&bound, &[], None, &[other]).starts_with("memory.limit: no limit, which counts")
    );
    // A running VE without a limit may get one.
    assert_eq!(
        refusal(&bound, &["memory.limit=3G"], Some(&[]), &[other, other]),
        ""
    );
}

#[test]
fn processors_of_a_set_are_not_sold_twice() {
    let four = node(4, "4G", &[]);
    let pinned = &["cpu.guarantee=0.8", "cpu.set=0"][..];
    let refused = refusal(&four, &["cpu.guarantee=0.5", "cpu.set=0"], None, &[pinned]);
    assert!(
        refused.contains("1.3 is guaranteed to VEs that may run on the processors 0"),
        "{refused}"
    );
    assert_eq!(
        refusal(
            &four,
            &["cpu.guarantee=0.5", "cpu.set=0-1"],
            None,
            &[pinned]
        ),
        ""
    );
    assert_eq!(
        refusal(&four, &["cpu.guarantee=0.5", "cpu.set=1"], None, &[pinned]),
        ""
    );
}

#[test]
fn disk_counts_every_ve() {
    let bound = node(1, "4G", &["disk.overcommit=1.5"]);
    let small = limits(&["disk.limit=100G"]);
    assert_eq!(
        bound.admit_disk(&limits(&["disk.limit=50G"]), None, &[&small]),
        Ok(())
    );
    assert!(
        bound
            .admit_disk(&limits(&["disk.limit=51G"]), None, &[&small])
            .is_err()
    );
    assert!(
        bound
            .admit_disk(&Limits::default(), None, &[&small])
            .is_err()
    );
}

#[test]
fn space_is_guaranteed_to_ves_that_stand_still_too() {
    let pool = node(1, "4G", &[]);
    let other = limits(&["disk.guarantee=90G"]);
    let denied = |wanted: &[&str]| pool.admit_disk(&limits(wanted), None, &[&other]);
    assert_eq!(denied(&["disk.guarantee=5G"]), Ok(()));
    assert_eq!(
        denied(&["disk.guarantee=6G"]).unwrap_err().to_string(),
        "disk.guarantee: 6G is asked for, and 5G is left: 100G less 5G for the node itself less 90G \
         guaranteed to 1 other VE"
    );
    // Who is guaranteed nothing is not refused by others' guarantees.
    assert_eq!(denied(&["disk.limit=100G"]), Ok(()));
}

/// A request in a history: which VE, and what it asks for.
fn request() -> impl Strategy<Value = (usize, Limits, bool)> {
    let cores = prop::option::of((10_u32..5_000).prop_map(Cores::from_thousandths));
    let memory = prop::option::of((4_u64..8_000).prop_map(|mebibytes| Bytes::new(mebibytes << 20)));
    let bits =
        prop::option::of((64_u64..2_000_000).prop_map(|kilobits| Bits::new(kilobits * 1_000)));
    let set = prop::option::of(prop::sample::select(vec!["0", "1", "0-1", "2-3", "0-3"]));
    (0_usize..6, cores, memory, bits, set, any::<bool>()).prop_map(
        |(ve, cpu_guarantee, memory_guarantee, network_guarantee, set, stops)| {
            let wanted = Limits {
                cpu_guarantee,
                memory_guarantee,
                network_guarantee,
                cpu_set: set.map(|set| set.parse().unwrap()),
                ..Limits::default()
            };
            (ve, wanted, stops)
        },
    )
}

proptest! {
    /// Whatever is asked in whatever order, what is granted is there.
    #[test]
    fn guarantees_never_exceed_the_node(requests in prop::collection::vec(request(), 1..60)) {
        let node = node(4, "16G", &["network.capacity=1Gbit"]);
        let mut running: [Option<Limits>; 6] = Default::default();
        for (ve, wanted, stops) in requests {
            if stops {
                running[ve] = None;
            }
            let others: Vec<_> = (0..6).filter(|at| *at != ve).filter_map(|at| running[at].as_ref()).collect();
            if node.admit(&wanted, running[ve].as_ref(), &others).is_ok() {
                running[ve] = Some(wanted);
            }
            let all: Vec<_> = running.iter().flatten().collect();
            let cpu: u32 = all.iter().filter_map(|l| l.cpu_guarantee).map(Cores::thousandths).sum();
            prop_assert!(cpu <= node.cpu_for_ves().thousandths());
            let memory: u64 = all.iter().filter_map(|l| l.memory_guarantee).map(Bytes::get).sum();
            prop_assert!(memory <= node.memory_for_ves().get());
            let network: u64 = all.iter().filter_map(|l| l.network_guarantee).map(Bits::get).sum();
            prop_assert!(Some(Bits::new(network)) <= node.network_for_ves());
            prop_assert_eq!(node.holds(&all, &all), Ok(()));
        }
    }
}
