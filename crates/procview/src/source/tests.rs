//! Parsers of control files, on text of both versions.

use super::*;

const STAT_V2: &str = "anon 1000\nfile 2000\nkernel 500\nkernel_stack 64\npagetables 32\n\
                       percpu 16\nshmem 300\nfile_mapped 40\nfile_dirty 5\nfile_writeback 6\n\
                       swapcached 7\nanon_thp 8\nfile_thp 9\nshmem_thp 10\ninactive_anon 11\n\
                       active_anon 12\ninactive_file 13\nactive_file 14\nunevictable 15\n\
                       slab_reclaimable 100\nslab_unreclaimable 200\nslab 300\n";

#[test]
fn reads_memory_of_both_versions() {
    let v2 = memory_v2(STAT_V2);
    assert_eq!(
        (v2.anon_bytes, v2.file_bytes, v2.shmem_bytes),
        (1_000, 2_000, 300)
    );
    assert_eq!(
        (v2.active_file_bytes, v2.slab_unreclaimable_bytes),
        (14, 200)
    );
    // The group's own numbers come first on v1; those with what is below it count.
    let v1 = memory_v1("cache 1\nrss 2\nshmem 3\ntotal_cache 10\ntotal_rss 20\ntotal_shmem 30\n");
    assert_eq!((v1.file_bytes, v1.anon_bytes, v1.shmem_bytes), (10, 20, 30));
    assert_eq!(memory_v2("nonsense"), Memory::default());
}

#[test]
fn none_is_no_number() {
    assert_eq!(bytes("1048576\n"), Some(1 << 20));
    for text in ["max\n", "-1\n", "9223372036854771712\n", "", "12 34"] {
        assert_eq!(bytes(text), None, "{text}");
    }
}

#[test]
fn shows_the_processors_of_a_set_as_far_as_the_quota_goes() {
    let online = [0, 1, 2, 3];
    for (set, quota, expected) in [
        ("", None, &online[..]),
        ("0-3\n", None, &online[..]),
        ("2-3\n", None, &[2, 3]),
        ("", Some((50_000, 100_000)), &[0]),
        ("", Some((100_001, 100_000)), &[0, 1]),
        ("2-3", Some((100_000, 100_000)), &[2]),
        ("", Some((-1, 100_000)), &online[..]),
        ("", Some((900_000, 100_000)), &online[..]),
        ("", Some((0, 0)), &online[..]),
        // Offline, or nonsense: better all than none.
        ("8-9", None, &online[..]),
        ("x", None, &online[..]),
    ] {
        assert_eq!(shown(&online, set, quota), expected, "{set:?} {quota:?}");
    }
}

#[test]
fn reads_disks_of_both_versions() {
    let v1 = disks_v1(
        "7:0 Read 4096\n7:0 Write 512\n7:0 Sync 0\n7:0 Discard 64\n7:0 Total 4608\nTotal 4608\n",
        "7:0 Read 2\n7:0 Write 1\n7:0 Discard 3\n8:0 Read 9\nTotal 3\n",
    );
    let v2 =
        disks_v2("7:0 rbytes=4096 wbytes=512 rios=2 wios=1 dbytes=64 dios=3\n8:0 rios=9\nbroken\n");
    assert_eq!(v1, v2);
    assert_eq!(
        (v1[0].read_bytes, v1[0].writes, v1[0].discards),
        (4_096, 1, 3)
    );
    assert_eq!((v1[1].major, v1[1].reads), (8, 9));
}
