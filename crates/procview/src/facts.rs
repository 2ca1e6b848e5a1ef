//! A VE's numbers, as far as its files show them: read by `source`, written by `render`.

/// Memory, in bytes. What a kernel does not count for a group is zero.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// What the VE may use: its limit, or all that the node has.
    pub total_bytes: u64,
    /// What it uses, page cache and kernel memory included.
    pub used_bytes: u64,
    /// Swap that it may use.
    pub swap_total_bytes: u64,
    /// Swap that it uses.
    pub swap_used_bytes: u64,
    /// Memory of programs.
    pub anon_bytes: u64,
    /// Page cache, shared memory included.
    pub file_bytes: u64,
    /// Shared memory and files of tmpfs.
    pub shmem_bytes: u64,
    /// Files that are mapped into programs.
    pub mapped_bytes: u64,
    /// Page cache to be written.
    pub dirty_bytes: u64,
    /// Page cache being written.
    pub writeback_bytes: u64,
    /// Memory that is also in swap.
    pub swap_cached_bytes: u64,
    /// The kernel's lists, from which it takes memory back: recently used memory of programs.
    pub active_anon_bytes: u64,
    /// Not recently used memory of programs.
    pub inactive_anon_bytes: u64,
    /// Recently used page cache.
    pub active_file_bytes: u64,
    /// Not recently used page cache.
    pub inactive_file_bytes: u64,
    /// What cannot be taken back.
    pub unevictable_bytes: u64,
    /// Kernel objects that can be given back, such as names of files.
    pub slab_reclaimable_bytes: u64,
    /// Kernel objects that cannot.
    pub slab_unreclaimable_bytes: u64,
    /// Stacks of threads within the kernel.
    pub kernel_stack_bytes: u64,
    /// Page tables.
    pub page_tables_bytes: u64,
    /// What the kernel has for each processor.
    pub percpu_bytes: u64,
    /// Huge pages of programs.
    pub anon_huge_bytes: u64,
    /// Huge pages of shared memory.
    pub shmem_huge_bytes: u64,
    /// Huge pages of files.
    pub file_huge_bytes: u64,
    /// Size of a huge page on this machine.
    pub huge_page_bytes: u64,
    /// How often a page was missing, since the VE began.
    pub faults: u64,
    /// How often it had to be read from a disk.
    pub major_faults: u64,
    /// Pages that came back from swap.
    pub swapped_in_pages: u64,
    /// Pages that went to swap.
    pub swapped_out_pages: u64,
    /// Processes that were ended because memory ran out.
    pub oom_kills: u64,
}

/// Time of processors since the VE began, in clock ticks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProcessorTime {
    /// In programs.
    pub user_ticks: u64,
    /// In programs of low priority.
    pub nice_ticks: u64,
    /// In the kernel, for programs.
    pub system_ticks: u64,
    /// With nothing to do.
    pub idle_ticks: u64,
    /// With something to do, and kept from it by the VE's limit.
    pub steal_ticks: u64,
}

impl ProcessorTime {
    /// One of `parts` equal parts.
    #[must_use]
    pub fn part(self, parts: u64) -> Self {
        self.map(|ticks| ticks / parts.max(1))
    }

    /// As many times as much.
    #[must_use]
    pub fn times(self, factor: u64) -> Self {
        self.map(|ticks| ticks.saturating_mul(factor))
    }

    fn map(self, change: impl Fn(u64) -> u64) -> Self {
        Self {
            user_ticks: change(self.user_ticks),
            nice_ticks: change(self.nice_ticks),
            system_ticks: change(self.system_ticks),
            idle_ticks: change(self.idle_ticks),
            steal_ticks: change(self.steal_ticks),
        }
    }
}

/// Processor time that a VE used, as its group counts it, in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Work {
    /// In programs, low priority included.
    pub user_us: u64,
    /// In programs of low priority.
    pub nice_us: u64,
    /// In the kernel, for programs.
    pub system_us: u64,
    /// Kept from working by the limit.
    pub throttled_us: u64,
}

/// A VE's processes and threads by what they do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tasks {
    /// On a processor, or waiting for one.
    pub running: u64,
    /// Waiting for a disk or the like, uninterruptible.
    pub blocked: u64,
    /// All.
    pub total: u64,
    /// The most that there were at once.
    pub most: u64,
}

/// What a VE did with a block device since it began.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DiskUse {
    /// First number of the device.
    pub major: u32,
    /// Second number of the device.
    pub minor: u32,
    /// Its name on the node, such as `sda`.
    pub name: String,
    /// Requests to read.
    pub reads: u64,
    /// What they read.
    pub read_bytes: u64,
    /// Requests to write.
    pub writes: u64,
    /// What they wrote.
    pub write_bytes: u64,
    /// Requests to discard.
    pub discards: u64,
    /// What they discarded.
    pub discard_bytes: u64,
}
