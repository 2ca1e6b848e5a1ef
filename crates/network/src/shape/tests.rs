//! What `tc` and `nft` are told.

use super::*;

fn network() -> NodeNetwork {
    NodeNetwork {
        ids: VeId::new(200).unwrap()..=VeId::new(1_999).unwrap(),
        ranges: vec!["10.9.0.0/16".parse().unwrap()],
        nat: false,
    }
}

fn lines(hold: &Hold) -> String {
    control_lines(&network(), VeId::new(201).unwrap(), "1:2", hold)
}

const LIMIT: Option<Rate> = Some(Rate {
    limit_bits: 10_000_000,
    burst_bits: 0,
});

#[test]
fn every_ve_has_a_class_of_its_own() {
    let class = |number| class(&network(), VeId::new(number).unwrap()).ok();
    assert_eq!(class(200).as_deref(), Some("1:1"));
    assert_eq!(class(455).as_deref(), Some("1:100"));
    assert_eq!(class(199), None);
}

#[test]
fn a_bucket_holds_a_large_segment_and_the_burst() {
    assert_eq!(bucket_bytes(64_000, 0), BUCKET_MIN_BYTES);
    assert_eq!(bucket_bytes(10_000_000_000, 0), 12_500_000);
    assert_eq!(
        bucket_bytes(1_000_000, 8_000_000),
        BUCKET_MIN_BYTES + 1_000_000
    );
}

#[test]
fn a_limit_alone_needs_nothing_of_the_node() {
    let hold = Hold {
        limit: LIMIT,
        part: None,
    };
    let lines = lines(&hold);
    assert!(
        lines.contains("rate 10000000bit ceil 10000000bit"),
        "{lines}"
    );
    assert!(!lines.contains("vr200") && !lines.contains("clsact"));
    let way = way_round(&network(), "ve201", "1:2", &hold);
    assert!(!way.contains("hook egress") && !way.contains("daddr"));
    assert_eq!(super::tests::lines(&Hold::default()), "");
}

#[test]
fn a_part_has_its_guarantee_as_rate_and_the_lower_bound_as_ceiling() {
    let part = |guarantee_bits, limit| Hold {
        limit,
        part: Some(Part {
            guarantee_bits,
            all_bits: 76_000_000,
        }),
    };
    for (hold, words) in [
        (part(40_000_000, None), "rate 40000000bit ceil 76000000bit"),
        (part(0, None), "rate 8000bit ceil 76000000bit burst 2000 "),
        (part(2_000_000, LIMIT), "rate 2000000bit ceil 10000000bit"),
    ] {
        let lines = lines(&hold);
        assert_eq!(lines.matches(words).count(), 2, "{lines}");
        assert!(lines.contains("u32 match ip src 10.9.0.0/16 classid"));
        assert!(lines.contains("u32 match ip6 src fe80::/10 classid"));
        let passes = way_round(&network(), "ve201", "1:2", &hold).contains("daddr");
        assert_eq!(passes, hold.limit.is_none());
    }
}
