//! Device control on cgroup v2: a BPF program made from a table, loaded and attached to a group.
//!
//! On cgroup v2 there is no `devices` controller: a program of type `BPF_PROG_TYPE_CGROUP_DEVICE`
//! is asked at every open and mknod of a device and answers 1 (allow) or 0 (`EPERM`). All programs
//! of a group and of the groups above it must allow (`BPF_F_ALLOW_MULTI`), so a group below can
//! take away and never give. The program lives as long as the group that it is attached to; nobody
//! has to hold it.
//!
//! The program is assembled here (two to six instructions per rule). `struct bpf_cgroup_dev_ctx` holds three words: access type (upper 16 bits access, lower 16 type), major,
//! minor.

use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd};

use crate::bpf::{
    Assembler, Attributes, Command, Condition, Instruction, Operation, Program, ProgramKind,
    Register, Size, call,
};

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
pub struct DeviceProgram(Program);

/// Most rules in one program: at six instructions each far below the 4,096 of `BPF_MAXINSNS`.
pub const RULES_MAX: usize = 256;

/// `BPF_DEVCG_ACC_MKNOD` of `linux/bpf.h`.
const ACCESS_MKNOD: i32 = 1;
const DEVICE_BLOCK: i32 = 1;
const DEVICE_CHARACTER: i32 = 2;

const ATTACH_CGROUP_DEVICE: u32 = 6;
const FLAG_ALLOW_MULTI: u32 = 2;

#[repr(C)]
struct AttachAttributes {
    target_fd: u32,
    attach_bpf_fd: u32,
    attach_type: u32,
    attach_flags: u32,
}
// SAFETY: `BPF_PROG_ATTACH`, without pointers.
unsafe impl Attributes for AttachAttributes {}

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
// SAFETY: `BPF_PROG_QUERY` as it was before it told flags; the last word is padding there, too.
unsafe impl Attributes for QueryAttributes {}

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
        let unwritable = || DeviceProgramError::TooManyRules { count: rules.len() };
        let program = assemble(rules).ok_or_else(unwritable)?;
        let kind = ProgramKind::CgroupDevice;
        Program::load(kind, "vessel_devices", c"Apache-2.0", &program)
            .map(Self)
            .map_err(DeviceProgramError::Load)
    }

    /// Attaches the program to a cgroup2 directory, beside any program that is there already.
    ///
    /// # Errors
    /// `EPERM` when a group above was given a program without `BPF_F_ALLOW_MULTI`, `EINVAL` when
    /// the program is attached there already, `EBADF` when the descriptor is no cgroup2 directory.
    pub fn attach(&self, group: BorrowedFd<'_>) -> Result<(), DeviceProgramError> {
        let mut attributes = AttachAttributes {
            target_fd: group.as_raw_fd().cast_unsigned(),
            attach_bpf_fd: self.0.as_fd().as_raw_fd().cast_unsigned(),
            attach_type: ATTACH_CGROUP_DEVICE,
            attach_flags: FLAG_ALLOW_MULTI,
        };
        // SAFETY: no pointer is in it; both descriptors are borrowed for the length of the call, which
        // keeps its own references.
        unsafe { call(Command::Attach, &mut attributes) }
            .map(|_| ())
            .map_err(DeviceProgramError::Attach)
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
    // SAFETY: with no buffer of ids and a count of zero the kernel writes to `attributes` alone.
    unsafe { call(Command::Query, &mut attributes) }.map_err(DeviceProgramError::Query)?;
    Ok(attributes.prog_count)
}

/// Assembles: `r2` = type, `r3` = access, `r4` = major, `r5` = minor; each rule goes on to the next when it does
/// not match, and leaves with 1 when it does; the end leaves with 0.
fn assemble(rules: &[DeviceRule]) -> Option<Vec<Instruction>> {
    use Register::{R0, R1, R2, R3, R4, R5};

    let mut program = Assembler::default();
    program.load(Size::Word, R3, R1, 0);
    program.load(Size::Word, R4, R1, 4);
    program.load(Size::Word, R5, R1, 8);
    program.combine(Operation::Move, R2, R3);
    program.compute(Operation::And, R2, 0xffff);
    program.compute(Operation::ShiftRight, R3, 16);
    for rule in rules {
        let kind = match rule.kind {
            DeviceKind::Character => DEVICE_CHARACTER,
            DeviceKind::Block => DEVICE_BLOCK,
        };
        let next = program.label();
        program.jump_if(R2, Condition::Unequal, kind, next);
        // Device numbers have 12 and 20 bits, so that they are no negative immediates.
        program.jump_if(R4, Condition::Unequal, rule.major.cast_signed(), next);
        if let Some(minor) = rule.minor {
            program.jump_if(R5, Condition::Unequal, minor.cast_signed(), next);
        }
        if !rule.make_node {
            program.jump_if(R3, Condition::AnySet, ACCESS_MKNOD, next);
        }
        program.compute(Operation::Move, R0, 1);
        program.exit();
        program.place(next);
    }
    program.compute(Operation::Move, R0, 0);
    program.exit();
    program.finish()
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
        run(
            &assemble(rules).unwrap(),
            [(access << 16) | kind, major, minor],
        ) == 1
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
