//! Device control on cgroup v2: a BPF program made from a table, loaded and attached to a group.
//!
//! On cgroup v2 there is no `devices` controller: a program of type `BPF_PROG_TYPE_CGROUP_DEVICE`
//! is asked at every open and mknod of a device and answers 1 (allow) or 0 (`EPERM`). All programs
//! of a group and of the groups above it must allow (`BPF_F_ALLOW_MULTI`), so a group below can
//! take away and never give. The program lives as long as the group that it is attached to; nobody
//! has to hold it.
//!
//! The program is assembled here by hand (two to six instructions per rule): no compiler, no BTF and
//! no library is needed. `bpf(2)` and `linux/bpf.h` are the reference; `struct
//! bpf_cgroup_dev_ctx` holds three words: access type (upper 16 bits access, lower 16 type), major,
//! minor.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// Kind of a device node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DeviceKind {
    /// A character device.
    Character,
    /// A block device.
    Block,
}

/// One allowed device, or all minors of a major. Whatever no rule allows is denied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct DeviceRule {
    /// Character or block.
    pub kind: DeviceKind,
    /// Major number.
    pub major: u32,
    /// Minor number, or any.
    pub minor: Option<u32>,
    /// Whether a node for it may be made (`mknod`), besides being read and written.
    pub make_node: bool,
}

/// A step of device control failed.
#[derive(Debug, thiserror::Error)]
pub enum DeviceProgramError {
    /// More rules than [`RULES_MAX`].
    #[error("{count} device rules are more than {RULES_MAX}, which one program holds")]
    TooManyRules {
        /// How many were given.
        count: usize,
    },
    /// The kernel refused the program.
    #[error(
        "the kernel refuses the device program: is it built with CONFIG_CGROUP_BPF, and is this \
         process privileged?"
    )]
    Load(#[source] io::Error),
    /// The kernel refused to attach the program.
    #[error("cannot attach the device program to the control group")]
    Attach(#[source] io::Error),
    /// The kernel refused to list what is attached.
    #[error("cannot list the device programs of the control group")]
    Query(#[source] io::Error),
}

/// A loaded program. It may be attached to any number of groups and closed afterwards.
#[derive(Debug)]
pub struct DeviceProgram {
    fd: OwnedFd,
}

/// Most rules in one program: at six instructions each far below the 4,096 of `BPF_MAXINSNS`.
pub const RULES_MAX: usize = 256;

/// `BPF_DEVCG_ACC_MKNOD` of `linux/bpf.h`.
const ACCESS_MKNOD: i32 = 1;
const DEVICE_BLOCK: i32 = 1;
const DEVICE_CHARACTER: i32 = 2;

const COMMAND_PROG_LOAD: libc::c_long = 5;
const COMMAND_PROG_ATTACH: libc::c_long = 8;
const COMMAND_PROG_QUERY: libc::c_long = 16;
const PROG_TYPE_CGROUP_DEVICE: u32 = 15;
const ATTACH_CGROUP_DEVICE: u32 = 6;
const FLAG_ALLOW_MULTI: u32 = 2;

/// `struct bpf_insn`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Instruction {
    code: u8,
    /// Destination in the lower, source in the upper half.
    registers: u8,
    offset: i16,
    immediate: i32,
}

/// The fields of `union bpf_attr` that `BPF_PROG_LOAD` reads here; the kernel takes a shorter
/// union as one whose rest is zero.
#[repr(C)]
struct LoadAttributes {
    prog_type: u32,
    instruction_count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buffer: u64,
    kernel_version: u32,
    flags: u32,
    name: [u8; 16],
}

#[repr(C)]
struct AttachAttributes {
    target_fd: u32,
    attach_bpf_fd: u32,
    attach_type: u32,
    attach_flags: u32,
}

#[repr(C)]
struct QueryAttributes {
    target_fd: u32,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    prog_ids: u64,
    prog_count: u32,
    reserved: u32,
}

impl DeviceProgram {
    /// Assembles and loads a program that allows exactly `rules`.
    ///
    /// # Errors
    /// When there are too many rules, or the kernel refuses (`EPERM` without `CAP_BPF` and
    /// `CAP_NET_ADMIN`, `EINVAL` without `CONFIG_CGROUP_BPF`).
    pub fn load(rules: &[DeviceRule]) -> Result<Self, DeviceProgramError> {
        if rules.len() > RULES_MAX {
            return Err(DeviceProgramError::TooManyRules { count: rules.len() });
        }
        let program = assemble(rules);
        let license = c"Apache-2.0";
        let attributes = LoadAttributes {
            prog_type: PROG_TYPE_CGROUP_DEVICE,
            // At most RULES_MAX * 6 + 7, see `assemble`.
            instruction_count: u32::try_from(program.len()).unwrap_or(u32::MAX),
            instructions: program.as_ptr().addr() as u64,
            license: license.as_ptr().addr() as u64,
            log_level: 0,
            log_size: 0,
            log_buffer: 0,
            kernel_version: 0,
            flags: 0,
            name: *b"vessel_devices\0\0",
        };
        // SAFETY: `attributes` is a complete, padding-free prefix of `union bpf_attr` for
        // BPF_PROG_LOAD and its size is passed; `instructions` points to `instruction_count`
        // instructions of 8 bytes in `program`, and `license` to a terminated string; both live
        // until after the call, which only reads them.
        let result = unsafe {
            libc::syscall(
                libc::SYS_bpf,
                COMMAND_PROG_LOAD,
                &raw const attributes,
                size_of::<LoadAttributes>(),
            )
        };
        let Some(fd) = i32::try_from(result).ok().filter(|fd| *fd >= 0) else {
            return Err(DeviceProgramError::Load(io::Error::last_os_error()));
        };
        // SAFETY: a successful BPF_PROG_LOAD returns a new descriptor (close-on-exec) that nobody
        // else in this process knows.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        Ok(Self { fd })
    }

    /// Attaches the program to a cgroup2 directory, beside any program that is there already.
    ///
    /// # Errors
    /// `EPERM` when a group above was given a program without `BPF_F_ALLOW_MULTI`, `EINVAL` when
    /// the program is attached there already, `EBADF` when the descriptor is no cgroup2 directory.
    pub fn attach(&self, group: BorrowedFd<'_>) -> Result<(), DeviceProgramError> {
        let attributes = AttachAttributes {
            target_fd: group.as_raw_fd().cast_unsigned(),
            attach_bpf_fd: self.fd.as_raw_fd().cast_unsigned(),
            attach_type: ATTACH_CGROUP_DEVICE,
            attach_flags: FLAG_ALLOW_MULTI,
        };
        // SAFETY: `attributes` is a padding-free prefix of `union bpf_attr` for BPF_PROG_ATTACH
        // with its size; both descriptors are borrowed for the length of the call, which keeps
        // its own references.
        let result = unsafe {
            libc::syscall(
                libc::SYS_bpf,
                COMMAND_PROG_ATTACH,
                &raw const attributes,
                size_of::<AttachAttributes>(),
            )
        };
        if result < 0 {
            return Err(DeviceProgramError::Attach(io::Error::last_os_error()));
        }
        Ok(())
    }
}

/// Counts the device programs that are attached to a cgroup2 directory itself (not above it).
///
/// # Errors
/// `EBADF` when the descriptor is no cgroup2 directory, `EPERM` without `CAP_NET_ADMIN`.
pub fn count_attached(group: BorrowedFd<'_>) -> Result<u32, DeviceProgramError> {
    let mut attributes = QueryAttributes {
        target_fd: group.as_raw_fd().cast_unsigned(),
        attach_type: ATTACH_CGROUP_DEVICE,
        query_flags: 0,
        attach_flags: 0,
        prog_ids: 0,
        prog_count: 0,
        reserved: 0,
    };
    // SAFETY: `attributes` is a padding-free prefix of `union bpf_attr` for BPF_PROG_QUERY with its
    // size, exclusively borrowed while the kernel writes `attach_flags` and `prog_count` into it;
    // with no buffer of ids and a count of zero the kernel writes nothing else.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            COMMAND_PROG_QUERY,
            &raw mut attributes,
            size_of::<QueryAttributes>(),
        )
    };
    if result < 0 {
        return Err(DeviceProgramError::Query(io::Error::last_os_error()));
    }
    Ok(attributes.prog_count)
}

/// Assembles: `r2` = type, `r3` = access, `r4` = major, `r5` = minor; each rule jumps on to the next when it does
/// not match, and leaves with 1 when it does; the end leaves with 0.
fn assemble(rules: &[DeviceRule]) -> Vec<Instruction> {
    const LOAD_WORD: u8 = 0x61; // BPF_LDX | BPF_MEM | BPF_W
    const MOVE_IMMEDIATE: u8 = 0xb7; // BPF_ALU64 | BPF_MOV | BPF_K
    const MOVE: u8 = 0xbf; // BPF_ALU64 | BPF_MOV | BPF_X
    const AND: u8 = 0x57; // BPF_ALU64 | BPF_AND | BPF_K
    const SHIFT_RIGHT: u8 = 0x77; // BPF_ALU64 | BPF_RSH | BPF_K
    const JUMP_UNEQUAL: u8 = 0x55; // BPF_JMP | BPF_JNE | BPF_K
    const JUMP_IF_SET: u8 = 0x45; // BPF_JMP | BPF_JSET | BPF_K
    const EXIT: u8 = 0x95; // BPF_JMP | BPF_EXIT

    let instruction = |code, to: u8, from: u8, offset, immediate| Instruction {
        code,
        registers: (from << 4) | to,
        offset,
        immediate,
    };
    let mut program = vec![
        instruction(LOAD_WORD, 3, 1, 0, 0),
        instruction(LOAD_WORD, 4, 1, 4, 0),
        instruction(LOAD_WORD, 5, 1, 8, 0),
        instruction(MOVE, 2, 3, 0, 0),
        instruction(AND, 2, 0, 0, 0xffff),
        instruction(SHIFT_RIGHT, 3, 0, 0, 16),
    ];
    for rule in rules {
        let kind = match rule.kind {
            DeviceKind::Character => DEVICE_CHARACTER,
            DeviceKind::Block => DEVICE_BLOCK,
        };
        let mut tests = vec![
            (JUMP_UNEQUAL, 2, kind),
            // Device numbers have 12 and 20 bits, so that they are no negative immediates.
            (JUMP_UNEQUAL, 4, rule.major.cast_signed()),
        ];
        tests.extend(
            rule.minor
                .map(|minor| (JUMP_UNEQUAL, 5, minor.cast_signed())),
        );
        tests.extend((!rule.make_node).then_some((JUMP_IF_SET, 3, ACCESS_MKNOD)));
        // From the test number i of n, the next rule is the n - i - 1 tests left plus two away.
        let mut left = i16::try_from(tests.len()).unwrap_or(i16::MAX);
        for (code, register, value) in tests {
            left -= 1;
            program.push(instruction(code, register, 0, left + 2, value));
        }
        program.push(instruction(MOVE_IMMEDIATE, 0, 0, 0, 1));
        program.push(instruction(EXIT, 0, 0, 0, 0));
    }
    program.push(instruction(MOVE_IMMEDIATE, 0, 0, 0, 0));
    program.push(instruction(EXIT, 0, 0, 0, 0));
    program
}

#[cfg(test)]
mod tests {
    use super::*;

    const NULL: DeviceRule = DeviceRule {
        kind: DeviceKind::Character,
        major: 1,
        minor: Some(3),
        make_node: true,
    };
    const PTS: DeviceRule = DeviceRule {
        kind: DeviceKind::Character,
        major: 136,
        minor: None,
        make_node: false,
    };

    /// Runs a program as the kernel would, for the few instructions that `assemble` knows.
    fn run(program: &[Instruction], context: [u32; 3]) -> u64 {
        let mut registers = [0_u64; 11];
        let mut at = 0_usize;
        for _ in 0..10_000 {
            let i = program[at];
            let (to, from) = (usize::from(i.registers & 15), usize::from(i.registers >> 4));
            let value = u64::from(i.immediate.cast_unsigned());
            at += 1;
            let skip = usize::try_from(i.offset).unwrap();
            match i.code {
                0x61 => registers[to] = u64::from(context[skip / 4]),
                0xb7 => registers[to] = value,
                0xbf => registers[to] = registers[from],
                0x57 => registers[to] &= value,
                0x77 => registers[to] >>= value,
                0x55 => at += if registers[to] == value { 0 } else { skip },
                0x45 => at += if registers[to] & value == 0 { 0 } else { skip },
                0x95 => return registers[0],
                code => panic!("unknown instruction {code:#x}"),
            }
        }
        panic!("the program does not end");
    }

    fn ask(rules: &[DeviceRule], access: u32, kind: u32, major: u32, minor: u32) -> bool {
        run(&assemble(rules), [(access << 16) | kind, major, minor]) == 1
    }

    #[test]
    fn allows_what_the_table_says_and_nothing_else() {
        let rules = [NULL, PTS];
        for access in [1, 2, 4, 6, 7] {
            assert!(ask(&rules, access, 2, 1, 3), "null, access {access}");
        }
        assert!(
            !ask(&rules, 2, 1, 1, 3),
            "a block device of the same numbers"
        );
        assert!(!ask(&rules, 2, 2, 1, 1), "mem");
        assert!(ask(&rules, 6, 2, 136, 77));
        assert!(!ask(&rules, 1, 2, 136, 77), "mknod of a terminal");
        assert!(!ask(&rules, 3, 2, 136, 77), "mknod with read of a terminal");
        assert!(!ask(&[], 2, 2, 1, 3));
    }

    #[test]
    fn refuses_a_table_that_is_too_long() {
        let rules = vec![NULL; RULES_MAX + 1];
        let error = DeviceProgram::load(&rules).unwrap_err();
        assert!(
            matches!(error, DeviceProgramError::TooManyRules { count: 257 }),
            "{error}"
        );
    }

    #[test]
    fn the_kernel_takes_the_longest_program() {
        if !rustix::process::geteuid().is_root() {
            println!("not run: loading a program needs root");
            return;
        }
        DeviceProgram::load(&vec![PTS; RULES_MAX]).unwrap();
        DeviceProgram::load(&[]).unwrap();
    }
}
