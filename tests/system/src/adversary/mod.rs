//! The adversary: a hostile root in a VE, who must fail to harm the node and the other VEs.
//!
//! Attacks are Perl, which can make any system call and is part of every Debian; its program and
//! libraries lie beside the busybox of the usual test VE. Every attack says how it ended: `refused`
//! with exit code 1, or `succeeded` with 0. Anything else is a broken attack, and fails its test: an
//! attack that never ran proves nothing.
//!
//! While a bomb runs, a neighbour's web server is asked again and again ([`neighbour`]), and the
//! daemon must answer. Bombs are small (a VE of 128 MB, 256 processes and half a processor) and take
//! seconds: what must hold is that they end at a limit, and that does not depend on the limit's
//! height.
//!
//! # What is attacked, and what stops it
//!
//! `(...)` is the class, or a CVE where the attack was seen before.
//!
//! | attack | test | what stops it |
//! |---|---|---|
//! | fork bomb (CWE-770) | `bombs::a_fork_bomb_ends_at_its_limit`, `bombs::without_a_limit_...` | the control group's number of processes, which every VE has |
//! | the same on all processors (CWE-400) | `bombs::a_fork_bomb_on_all_processors_...` | the share of each VE; see below |
//! | memory bomb, semaphores (CVE-2021-3759) | `bombs::a_memory_bomb_...` | the memory group, whose killer stays in the VE |
//! | page cache, tmpfs, names and inodes (CWE-400) | `bombs::page_cache_...`, `filling_tmpfs_...`, `a_flood_of_names_...` | the same group: caches, tmpfs and kernel objects are charged to it |
//! | disk, metadata, attributes (CWE-770) | `bombs::filling_the_disk_...`, `metadata_...` | the quota of the VE's subvolumes |
//! | endless restarts (CWE-400) | `bombs::a_reboot_storm_...` | ten in a minute, then the node gives it up |
//! | terminals, inotify (CWE-770) | `kernel_objects::terminals_...`, `inotify_...` | `max=` of the VE's devpts; an own user for each VE |
//! | keys (CVE-2016-0728, CVE-2014-9529) | `kernel_objects::keyrings_...` | the seccomp filter |
//! | namespaces, and their limits raised (CWE-770, CWE-269) | `kernel_objects::namespaces_...`, `limits_of_namespaces_...` | `/proc/sys/user` of the VE, written before its root has rights |
//! | mounts (CVE-2016-6213) | `kernel_objects::mounts_...` | the kernel's number for each mount namespace; the memory group |
//! | control groups (CWE-770) | `kernel_objects::control_groups_...` | descendants and depth, in files above the VE's |
//! | neighbour table, dynamic entries (CWE-770) | `floods::a_full_neighbour_table_...` | VEs are reached by permanent entries, which need no room in it |
//! | the same, permanent entries (CWE-770) | `floods::permanent_neighbours_...` | **open**, see below |
//! | packets, connections (CWE-400, CWE-770) | `floods::a_flood_of_packets_...`, `connections_without_end_...` | they are sent in the VE's own time; the packet filter counts its connections |
//! | console, journal (CWE-779) | `floods::a_flooded_console_...`, `a_flooded_journal_...` | two files of a fixed size; the VE's journal is a file of the VE |
//! | io_uring (CVE-2022-29582), userfaultfd, bpf (CVE-2021-3490), perf (CVE-2013-2094), modules, kexec, swap, handles (CVE-2014-3519), nested namespaces (CVE-2022-0185), x32 (CVE-2014-0038), TIOCSTI (CVE-2017-5226, CVE-2019-10063), TIOCLINUX (CVE-2023-28100), vsock (CVE-2021-26708) | `escapes::calls_into_...` | the seccomp filter, capabilities |
//! | core_pattern (CVE-2022-0811), modprobe, sysrq, kcore, sysctls, sysfs, debugfs, `release_agent` (CVE-2022-0492), own limits | `escapes::files_of_...` | the user namespace; covers are not the wall |
//! | mknod, raw disks (CVE-2019-10147) | `escapes::device_nodes_...` | `mknod` in a user namespace, `nodev`, device control |
//! | setns, ptrace (CVE-2016-9962), other processes and mounts, chroot (CWE-243) | `escapes::processes_...` | namespaces, `pivot_root` |
//! | clocks, reboot, Ctrl-Alt-Del | `escapes::the_clock_...` | capabilities of the node's user namespace; a pid namespace's own `reboot` |
//! | `trusted.overlay.*` (CVE-2023-2640), capabilities and set-id files through an overlay (CVE-2021-3493, CVE-2023-0386) | `pool::attributes_...`, `the_pool_...` | the user namespace; a pool that only the node's programs see, `nosuid`, `nodev` |
//! | leaked descriptors and directories (CVE-2024-21626) | `races::commands_from_outside_...`, `no_directory_...` | whoever enters closes everything and gives up its rights first |
//! | `/proc/self/exe` (CVE-2019-5736) | `races::the_launchers_program_...` | it is not dumpable, and its file is not the VE's to write |
//! | lies in `/etc/passwd` (CWE-59, CWE-400) | `races::lying_account_files_...` | read by a process of the VE, with a limit of size and time |
//! | swapped links in `cp` (CVE-2018-15664, CVE-2019-14271) | `races::copies_...` | copied by a process of the VE |
//! | mount points that are links (CVE-2019-16884, CVE-2021-30465) | `races::mount_points_...` | mounted on descriptors that follow no link |
//! | console and log replaced (CWE-59) | `races::the_console_...` | the log lies outside, the console is a descriptor |
//! | traversal, hard links, devices, sizes, depth, names in templates (CVE-2014-6407, CVE-2014-9356, CWE-22, CWE-59, CWE-409, CWE-674) | `archives::templates_...`, `archives_that_...`, `an_archive_of_names_...` | read into values, checked, and only then stored |
//! | the same in archives into a VE (CVE-2018-15664) | `archives::archives_sent_...` | unpacked by a process of the VE |
//!
//! # What is open
//!
//! - **Permanent neighbour entries have no limit in the kernel, and their memory is charged to
//!   nobody.** The root of a VE may add them (`ip neighbour add ... nud permanent`), some 100,000 a second,
//!   until the node has no memory left. They cut nobody off, the node's alert about its memory tells of
//!   it, and they go with the VE: stop it. A filter of system calls cannot see into netlink messages.
//! - Where a VE has no `cpu.limit`, its neighbour has its share but waits for slices: an answer that
//!   takes one millisecond on a quiet node may take ten.
//! - Connections that end at once stay in the kernel's table for up to two minutes and count for
//!   nobody; when the table is nearly full the kernel throws such ones out first.
//! - The limit of names in a template (two million) is not tried here: it would take a minute.

pub(crate) mod archives;
pub(crate) mod arsenal;
pub(crate) mod bombs;
pub(crate) mod escapes;
pub(crate) mod floods;
pub(crate) mod kernel_objects;
mod neighbour;
pub(crate) mod pool;
pub(crate) mod races;
