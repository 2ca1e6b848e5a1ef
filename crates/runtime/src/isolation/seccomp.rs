//! Which system calls a VE does not get, as data with a reason each, and the filter made of them.
//!
//! The user namespace already keeps a VE from what belongs to the node. This list is the second
//! wall: it takes away kernel code that has no use in a VE (where the next privilege escalation
//! will be found), what namespaces do not separate, and what a checkpoint cannot keep. Everything
//! else is allowed: a VE is a whole server, and a list of what servers call would age.
//!
//! The filter is assembled here and not by a library because one filter must give three different
//! answers, judge two system call tables and be installed without `no_new_privs`.
//!
//! 32-bit programs (`i386`) are refused unless asked for: the compatibility paths of the kernel
//! are a second set of doors, rarely used and often broken (CVE-2021-22555), and `socketcall` hides
//! its arguments from any filter. The `x32` table is refused always: it would pass every rule.

use kernel::seccomp::Instruction;

#[cfg(not(target_arch = "x86_64"))]
compile_error!("the table of system calls has columns for x86_64 and i386 only; add one");

/// What a filtered call returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// `EPERM`: the caller is told that it may not.
    NotPermitted,
    /// `ENOSYS`: the caller falls back to an older call.
    NotThere,
    /// `EAFNOSUPPORT`: the caller is told that there is no such kind of socket.
    NoSuchFamily,
}

/// Which uses of a call a rule is about. Only the low half of an argument is compared, as the
/// kernel itself reads these arguments as 32 bits wide.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// Every use.
    Always,
    /// Uses whose numbered argument has any of these bits.
    AnyBit(u8, u32),
    /// Uses whose numbered argument is this.
    Is(u8, u32),
    /// Uses whose numbered argument is none of these.
    IsNone(u8, &'static [u32]),
}

/// One rule.
#[derive(Clone, Copy, Debug)]
pub struct Rule {
    /// Name of the call.
    pub call: &'static str,
    /// Its number for 64-bit programs.
    pub x86_64: Option<u32>,
    /// Its number for 32-bit programs.
    pub i386: Option<u32>,
    /// Which uses.
    pub when: When,
    /// What they get.
    pub answer: Answer,
    /// Whether VEs that may nest containers are spared.
    pub spared_by_nesting: bool,
    /// Why.
    pub reason: &'static str,
}

/// What a VE's filter should be.
#[derive(Clone, Copy, Debug, Default)]
pub struct Profile {
    /// The VE makes namespaces of its own.
    pub nesting: bool,
    /// The VE runs 32-bit programs.
    pub compat_32bit: bool,
}

/// `CLONE_NEW{UTS,IPC,USER,PID,TIME}`: namespaces that CRIU refuses to find inside a VE.
const NESTED: u32 = 0x3c00_0080;

use Answer::{NoSuchFamily, NotPermitted, NotThere};
use When::{Always, AnyBit, Is, IsNone};

const fn rule(
    call: &'static str,
    numbers: (u32, u32),
    when: When,
    answer: Answer,
    reason: &'static str,
) -> Rule {
    let (x86_64, i386) = numbers;
    Rule {
        call,
        x86_64: if x86_64 == NO { None } else { Some(x86_64) },
        i386: if i386 == NO { None } else { Some(i386) },
        when,
        answer,
        spared_by_nesting: false,
        reason,
    }
}

const fn nesting(rule: Rule) -> Rule {
    Rule {
        spared_by_nesting: true,
        ..rule
    }
}

/// Stands for a call that one of the tables lacks.
const NO: u32 = u32::MAX;

/// The list. Numbers from the kernel's `arch/x86/entry/syscalls/syscall_{64,32}.tbl`.
#[rustfmt::skip]
pub const RULES: &[Rule] = &[
    nesting(rule("unshare", (272, 310), AnyBit(0, NESTED), NotPermitted,
        "a nested user, PID, UTS, IPC or time namespace cannot be checkpointed; user namespaces open kernel code to everybody")),
    nesting(rule("clone", (56, 120), AnyBit(0, NESTED), NotPermitted, "as unshare")),
    nesting(rule("clone3", (435, 435), Always, NotThere,
        "its flags are behind a pointer, which no filter can read; C libraries fall back to clone")),
    rule("io_uring_setup", (425, 425), Always, NotThere,
        "cannot be checkpointed; passes by this filter; the kernel's most exploited part of late"),
    rule("io_uring_enter", (426, 426), Always, NotThere, "as io_uring_setup"),
    rule("io_uring_register", (427, 427), Always, NotThere, "as io_uring_setup"),
    rule("userfaultfd", (323, 374), Always, NotPermitted,
        "cannot be checkpointed; holds the kernel still in the middle of a copy, which exploits need"),
    rule("kexec_load", (246, 283), Always, NotPermitted, "replaces the node's kernel"),
    rule("kexec_file_load", (320, NO), Always, NotPermitted, "replaces the node's kernel"),
    rule("init_module", (175, 128), Always, NotPermitted, "loads code into the node's kernel"),
    rule("finit_module", (313, 350), Always, NotPermitted, "loads code into the node's kernel"),
    rule("delete_module", (176, 129), Always, NotPermitted, "takes code out of the node's kernel"),
    rule("open_by_handle_at", (304, 342), Always, NotPermitted,
        "opens files by number, also outside of the VE's root (CVE-2014-3519)"),
    rule("bpf", (321, 357), Always, NotPermitted, "verifier bugs; programs would watch the node"),
    rule("perf_event_open", (298, 336), Always, NotPermitted, "measures the node and other VEs"),
    rule("add_key", (248, 286), Always, NotThere, "keyrings are not separated, nor checkpointed"),
    rule("request_key", (249, 287), Always, NotThere, "as add_key"),
    rule("keyctl", (250, 288), Always, NotThere, "as add_key"),
    rule("swapon", (167, 87), Always, NotPermitted, "the node's memory"),
    rule("swapoff", (168, 115), Always, NotPermitted, "the node's memory"),
    rule("settimeofday", (164, 79), Always, NotPermitted, "the node's clock"),
    rule("stime", (NO, 25), Always, NotPermitted, "the node's clock"),
    rule("clock_settime", (227, 264), Always, NotPermitted, "the node's clock"),
    rule("clock_settime64", (NO, 404), Always, NotPermitted, "the node's clock"),
    rule("quotactl", (179, 131), Always, NotPermitted, "quotas of the node's file systems"),
    rule("quotactl_fd", (443, 443), Always, NotPermitted, "quotas of the node's file systems"),
    rule("ioperm", (173, 101), Always, NotPermitted, "hardware"),
    rule("iopl", (172, 110), Always, NotPermitted, "hardware"),
    rule("vm86", (NO, 166), Always, NotPermitted, "old processor mode, no use but exploits"),
    rule("vm86old", (NO, 113), Always, NotPermitted, "as vm86"),
    rule("acct", (163, 51), Always, NotPermitted, "process accounting of the node"),
    rule("syslog", (103, 103), Always, NotPermitted, "the kernel's log tells about the node and other VEs"),
    rule("lookup_dcookie", (212, 253), Always, NotPermitted, "profiler's view of the node's files"),
    rule("nfsservctl", (180, 169), Always, NotThere, "gone from kernels, kept out"),
    rule("uselib", (134, 86), Always, NotThere, "obsolete, a door for exploits only"),
    rule("ioctl", (16, 54), Is(1, 0x5412), NotPermitted,
        "TIOCSTI types into a terminal, also one that the node's administrator holds"),
    rule("ioctl", (16, 54), Is(1, 0x541c), NotPermitted, "TIOCLINUX pastes into a terminal"),
    rule("socket", (41, 359), Is(0, 40), NoSuchFamily,
        "AF_VSOCK has no network namespace: it reaches the hypervisor and every VE"),
    rule("personality", (135, 136), IsNone(0, &[0, 0x8, 0x2_0000, 0x2_0008, 0xffff_ffff]), NotPermitted,
        "weakens address randomization and memory protection; plain and 32-bit Linux and asking stay"),
];

const AUDIT_ARCH_X86_64: u32 = 0xc000_003e;
const AUDIT_ARCH_I386: u32 = 0x4000_0003;
/// Bit in the number of a call from the x32 table.
const X32_BIT: u32 = 0x4000_0000;

const OFFSET_NUMBER: u32 = 0;
const OFFSET_ARCHITECTURE: u32 = 4;
const OFFSET_ARGUMENTS: u32 = 16;

const LOAD: u16 = 0x20; // BPF_LD | BPF_W | BPF_ABS
const RETURN: u16 = 0x06; // BPF_RET | BPF_K
const JUMP: u16 = 0x05; // BPF_JMP | BPF_JA
const JUMP_EQUAL: u16 = 0x15; // BPF_JMP | BPF_JEQ | BPF_K
const JUMP_AT_LEAST: u16 = 0x35; // BPF_JMP | BPF_JGE | BPF_K
const JUMP_ANY_BIT: u16 = 0x45; // BPF_JMP | BPF_JSET | BPF_K

const ALLOW: u32 = 0x7fff_0000;
const KILL_PROCESS: u32 = 0x8000_0000;
const ERROR: u32 = 0x0005_0000;

impl Answer {
    fn action(self) -> u32 {
        ERROR
            | match self {
                NotPermitted => 1,
                NotThere => 38,
                NoSuchFamily => 97,
            }
    }
}

/// Assembles a VE's filter.
///
/// The kernel remembers which calls such a filter allows whatever their arguments, so most calls
/// never run it.
#[must_use]
pub fn program(profile: Profile) -> Vec<Instruction> {
    let mut program = vec![step(LOAD, OFFSET_ARCHITECTURE)];
    let compat = if profile.compat_32bit {
        table(profile, |rule| rule.i386)
    } else {
        vec![step(RETURN, NotThere.action())]
    };
    let mut native = vec![
        step(LOAD, OFFSET_NUMBER),
        jump(JUMP_AT_LEAST, X32_BIT, 0, 1),
        step(RETURN, NotThere.action()),
    ];
    native.extend(table(profile, |rule| rule.x86_64));
    for (architecture, part) in [(AUDIT_ARCH_X86_64, native), (AUDIT_ARCH_I386, compat)] {
        program.push(jump(JUMP_EQUAL, architecture, 1, 0));
        // Conditional jumps reach 255 instructions, this one any distance.
        let length = u32::try_from(part.len()).unwrap_or(u32::MAX);
        program.push(step(JUMP, length));
        program.extend(part);
    }
    program.push(step(RETURN, KILL_PROCESS));
    program
}

/// The rules of one system call table, ending in a return.
fn table(profile: Profile, number: impl Fn(&Rule) -> Option<u32>) -> Vec<Instruction> {
    let mut part = vec![step(LOAD, OFFSET_NUMBER)];
    for rule in RULES
        .iter()
        .filter(|rule| !(profile.nesting && rule.spared_by_nesting))
    {
        let Some(number) = number(rule) else { continue };
        let body = judge(rule);
        // No rule is longer than 255 instructions: the longest list of values has five.
        let length = u8::try_from(body.len()).unwrap_or(u8::MAX);
        part.push(jump(JUMP_EQUAL, number, 0, length));
        part.extend(body);
    }
    part.push(step(RETURN, ALLOW));
    part
}

/// What follows once the call's number matched: returns, or leaves the number loaded again.
fn judge(rule: &Rule) -> Vec<Instruction> {
    let refuse = step(RETURN, rule.answer.action());
    let argument = |index: u8| step(LOAD, OFFSET_ARGUMENTS + 8 * u32::from(index));
    let again = step(LOAD, OFFSET_NUMBER);
    match rule.when {
        Always => vec![refuse],
        AnyBit(index, bits) => {
            vec![
                argument(index),
                jump(JUMP_ANY_BIT, bits, 0, 1),
                refuse,
                again,
            ]
        }
        Is(index, value) => vec![
            argument(index),
            jump(JUMP_EQUAL, value, 0, 1),
            refuse,
            again,
        ],
        IsNone(index, values) => {
            let mut body = vec![argument(index)];
            for (value, left) in values.iter().zip((0..values.len()).rev()) {
                // Over the remaining comparisons and the refusal.
                let over = u8::try_from(left + 1).unwrap_or(u8::MAX);
                body.push(jump(JUMP_EQUAL, *value, over, 0));
            }
            body.extend([refuse, again]);
            body
        }
    }
}

fn step(code: u16, operand: u32) -> Instruction {
    Instruction {
        code,
        jump_true: 0,
        jump_false: 0,
        operand,
    }
}

fn jump(code: u16, operand: u32, jump_true: u8, jump_false: u8) -> Instruction {
    Instruction {
        code,
        jump_true,
        jump_false,
        operand,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Runs a program as the kernel would; panics where the kernel's checker would refuse it.
    fn run(program: &[Instruction], architecture: u32, number: u32, arguments: [u64; 6]) -> u32 {
        let (mut at, mut accumulator) = (0, 0);
        loop {
            let Instruction {
                code,
                jump_true,
                jump_false,
                operand,
            } = program[at];
            at += 1;
            let condition = match code {
                LOAD => {
                    accumulator = match operand {
                        OFFSET_NUMBER => number,
                        OFFSET_ARCHITECTURE => architecture,
                        offset => {
                            let index = usize::try_from((offset - OFFSET_ARGUMENTS) / 8).unwrap();
                            u32::try_from(arguments[index] & 0xffff_ffff).unwrap()
                        }
                    };
                    continue;
                }
                RETURN => return operand,
                JUMP => {
                    at += usize::try_from(operand).unwrap();
                    continue;
                }
                JUMP_EQUAL => accumulator == operand,
                JUMP_AT_LEAST => accumulator >= operand,
                JUMP_ANY_BIT => accumulator & operand != 0,
                code => panic!("unknown instruction {code:#x}"),
            };
            at += usize::from(if condition { jump_true } else { jump_false });
        }
    }

    /// What the table says, read without any program.
    fn expected(profile: Profile, native: bool, number: u32, arguments: [u64; 6]) -> u32 {
        if native && number >= X32_BIT || !native && !profile.compat_32bit {
            return NotThere.action();
        }
        let low = |index: u8| u32::try_from(arguments[usize::from(index)] & 0xffff_ffff).unwrap();
        let hit = RULES.iter().find(|rule| {
            let own = if native { rule.x86_64 } else { rule.i386 };
            own == Some(number)
                && !(profile.nesting && rule.spared_by_nesting)
                && match rule.when {
                    Always => true,
                    AnyBit(index, bits) => low(index) & bits != 0,
                    Is(index, value) => low(index) == value,
                    IsNone(index, values) => !values.contains(&low(index)),
                }
        });
        hit.map_or(ALLOW, |rule| rule.answer.action())
    }

    #[test]
    fn refuses_what_must_never_pass() {
        let program = program(Profile::default());
        let of = |number, first| run(&program, AUDIT_ARCH_X86_64, number, [first, 0, 0, 0, 0, 0]);
        assert_eq!(of(272, 0x1000_0000), ERROR | 1, "unshare(CLONE_NEWUSER)");
        assert_eq!(
            of(272, 0x0002_0000),
            ALLOW,
            "unshare(CLONE_NEWNS): PrivateTmp needs it"
        );
        assert_eq!(of(56, 0x2000_0011), ERROR | 1, "clone(CLONE_NEWPID)");
        assert_eq!(of(435, 0), ERROR | 38, "clone3");
        assert_eq!(of(0x4000_0000 | 272, 0), ERROR | 38, "x32");
        assert_eq!(of(0, 0), ALLOW, "read");
        assert_eq!(
            run(&program, AUDIT_ARCH_I386, 4, [0; 6]),
            ERROR | 38,
            "32-bit write"
        );
        assert_eq!(
            run(&program, 0xc000_00b7, 0, [0; 6]),
            KILL_PROCESS,
            "aarch64"
        );
        let ioctl = |command| run(&program, AUDIT_ARCH_X86_64, 16, [0, command, 0, 0, 0, 0]);
        assert_eq!(ioctl(0x5412), ERROR | 1);
        assert_eq!(
            ioctl(0x1_0000_5412),
            ERROR | 1,
            "the kernel ignores the high half"
        );
        assert_eq!(ioctl(0x5413), ALLOW);
    }

    #[test]
    fn every_rule_has_a_reason_and_a_number() {
        for rule in RULES {
            assert!(rule.reason.len() > 5, "{}", rule.call);
            assert!(rule.x86_64.or(rule.i386).is_some(), "{}", rule.call);
        }
    }

    proptest! {
        #[test]
        fn the_program_says_what_the_table_says(
            nesting: bool,
            compat_32bit: bool,
            native: bool,
            pick in 0..RULES.len(),
            other in 0_u32..500,
            use_other: bool,
            first in prop_oneof![any::<u64>(), Just(0), Just(40), Just(8), Just(0x1000_0000)],
            second in prop_oneof![any::<u64>(), Just(0x5412), Just(0x541c)],
        ) {
            let profile = Profile { nesting, compat_32bit };
            let own = if native { RULES[pick].x86_64 } else { RULES[pick].i386 };
            let number = if use_other { other } else { own.unwrap_or(other) };
            let architecture = if native { AUDIT_ARCH_X86_64 } else { AUDIT_ARCH_I386 };
            let arguments = [first, second, 0, 0, 0, 0];
            prop_assert_eq!(
                run(&program(profile), architecture, number, arguments),
                expected(profile, native, number, arguments)
            );
        }
    }
}
