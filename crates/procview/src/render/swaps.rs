//! `/proc/swaps`.

use crate::facts::Memory;

/// `/proc/swaps`: one area that stands for what the VE may use of the node's.
#[must_use]
pub fn swaps(memory: &Memory) -> String {
    let mut text = "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n".to_owned();
    if memory.swap_total_bytes > 0 {
        let size = memory.swap_total_bytes / 1024;
        let used = memory.swap_used_bytes.min(memory.swap_total_bytes) / 1024;
        // The kernel keeps the columns apart by one tab more after short numbers.
        let tab = |number: u64| if number < 10_000_000 { "\t" } else { "" };
        text += &format!(
            "{:<40}virtual\t\t{size}\t{}{used}\t{}-2\n",
            "none",
            tab(size),
            tab(used)
        );
    }
    text
}
