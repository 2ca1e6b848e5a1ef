//! `/proc/meminfo`.

use std::fmt::Write as _;

use crate::facts::Memory;

/// VEs have no huge pages of their own: these are set aside on the node, by hand.
const PAGE_COUNTS: [&str; 4] = [
    "HugePages_Total:",
    "HugePages_Free:",
    "HugePages_Rsvd:",
    "HugePages_Surp:",
];

/// `/proc/meminfo` (`proc_meminfo(5)`). Lines that only make sense for the machine are left out,
/// as a kernel leaves out those that it was built without.
#[must_use]
pub fn meminfo(memory: &Memory) -> String {
    let mut text = String::with_capacity(1_200);
    for (name, bytes) in amounts(memory) {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{name:<16}{:>8} kB", bytes / 1024);
    }
    for name in PAGE_COUNTS {
        let _ = writeln!(text, "{name:<16}{:>8}", 0);
    }
    let size = memory.huge_page_bytes / 1024;
    let _ = writeln!(text, "{:<16}{size:>8} kB", "Hugepagesize:");
    text
}

fn amounts(memory: &Memory) -> [(&'static str, u64); 32] {
    let total = memory.total_bytes;
    let free = total.saturating_sub(memory.used_bytes);
    let file = memory.active_file_bytes + memory.inactive_file_bytes;
    // What the kernel could take back without swapping. It keeps some for itself on a machine, which
    // it does outside of a VE.
    let available = free
        .saturating_add(file)
        .saturating_add(memory.slab_reclaimable_bytes)
        .min(total);
    let slab = memory.slab_reclaimable_bytes + memory.slab_unreclaimable_bytes;
    let swap_free = memory
        .swap_total_bytes
        .saturating_sub(memory.swap_used_bytes);
    [
        ("MemTotal:", total),
        ("MemFree:", free),
        ("MemAvailable:", available),
        // The kernel counts buffers of a group as what they are, files.
        ("Buffers:", 0),
        ("Cached:", memory.file_bytes),
        ("SwapCached:", memory.swap_cached_bytes),
        (
            "Active:",
            memory.active_anon_bytes + memory.active_file_bytes,
        ),
        (
            "Inactive:",
            memory.inactive_anon_bytes + memory.inactive_file_bytes,
        ),
        ("Active(anon):", memory.active_anon_bytes),
        ("Inactive(anon):", memory.inactive_anon_bytes),
        ("Active(file):", memory.active_file_bytes),
        ("Inactive(file):", memory.inactive_file_bytes),
        ("Unevictable:", memory.unevictable_bytes),
        ("SwapTotal:", memory.swap_total_bytes),
        ("SwapFree:", swap_free),
        ("Dirty:", memory.dirty_bytes),
        ("Writeback:", memory.writeback_bytes),
        ("AnonPages:", memory.anon_bytes),
        ("Mapped:", memory.mapped_bytes),
        ("Shmem:", memory.shmem_bytes),
        ("KReclaimable:", memory.slab_reclaimable_bytes),
        ("Slab:", slab),
        ("SReclaimable:", memory.slab_reclaimable_bytes),
        ("SUnreclaim:", memory.slab_unreclaimable_bytes),
        ("KernelStack:", memory.kernel_stack_bytes),
        ("PageTables:", memory.page_tables_bytes),
        (
            "CommitLimit:",
            total.saturating_add(memory.swap_total_bytes),
        ),
        // What is promised and was never touched is not counted for a group.
        (
            "Committed_AS:",
            memory.anon_bytes + memory.shmem_bytes + memory.swap_used_bytes,
        ),
        ("Percpu:", memory.percpu_bytes),
        ("AnonHugePages:", memory.anon_huge_bytes),
        ("ShmemHugePages:", memory.shmem_huge_bytes),
        ("FileHugePages:", memory.file_huge_bytes),
    ]
}
