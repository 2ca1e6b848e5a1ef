//! `/proc/vmstat`.

use std::fmt::Write as _;

use crate::facts::{DiskUse, Memory};

/// `/proc/vmstat`, of which programs take what they know by name: what is counted for a group is
/// there, and nothing else.
#[must_use]
pub fn vmstat(memory: &Memory, disks: &[DiskUse], page_bytes: u64) -> String {
    let pages = |bytes: u64| bytes / page_bytes.max(1);
    let moved = |bytes: fn(&DiskUse) -> u64| disks.iter().map(bytes).sum::<u64>() / 1_024;
    let mut text = String::with_capacity(768);
    for (name, value) in [
        (
            "nr_free_pages",
            pages(memory.total_bytes.saturating_sub(memory.used_bytes)),
        ),
        ("nr_inactive_anon", pages(memory.inactive_anon_bytes)),
        ("nr_active_anon", pages(memory.active_anon_bytes)),
        ("nr_inactive_file", pages(memory.inactive_file_bytes)),
        ("nr_active_file", pages(memory.active_file_bytes)),
        ("nr_unevictable", pages(memory.unevictable_bytes)),
        ("nr_slab_reclaimable", pages(memory.slab_reclaimable_bytes)),
        (
            "nr_slab_unreclaimable",
            pages(memory.slab_unreclaimable_bytes),
        ),
        ("nr_anon_pages", pages(memory.anon_bytes)),
        ("nr_mapped", pages(memory.mapped_bytes)),
        ("nr_file_pages", pages(memory.file_bytes)),
        ("nr_dirty", pages(memory.dirty_bytes)),
        ("nr_writeback", pages(memory.writeback_bytes)),
        ("nr_shmem", pages(memory.shmem_bytes)),
        ("nr_kernel_stack", memory.kernel_stack_bytes / 1_024),
        ("nr_page_table_pages", pages(memory.page_tables_bytes)),
        // These two count kibibytes, whatever their names say.
        ("pgpgin", moved(|disk| disk.read_bytes)),
        ("pgpgout", moved(|disk| disk.write_bytes)),
        ("pswpin", memory.swapped_in_pages),
        ("pswpout", memory.swapped_out_pages),
        ("pgfault", memory.faults),
        ("pgmajfault", memory.major_faults),
        ("oom_kill", memory.oom_kills),
    ] {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{name} {value}");
    }
    text
}
