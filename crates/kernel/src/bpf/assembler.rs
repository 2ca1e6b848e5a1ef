//! Writing programs, with labels instead of counted jumps.

use std::os::fd::AsRawFd as _;

use super::Map;

/// `struct bpf_insn`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Instruction {
    /// What to do.
    pub code: u8,
    /// Destination in the lower, source in the upper half.
    pub registers: u8,
    /// Of a memory access, or of a jump, in instructions.
    pub offset: i16,
    /// The constant.
    pub immediate: i32,
}

/// A register. `R0` holds results, `R1` to `R5` arguments (lost over a call), `R6` to `R9` stay, and
/// [`Register::Frame`] is the end of 512 bytes of stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "numbers")]
pub enum Register {
    R0,
    R1,
    R2,
    R3,
    R4,
    R5,
    R6,
    R7,
    R8,
    R9,
    Frame,
}

/// How much is read or written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Size {
    /// One byte.
    Byte,
    /// Two.
    Half,
    /// Four.
    Word,
    /// Eight.
    Double,
}

/// Arithmetic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "they say what they are")]
pub enum Operation {
    Add,
    Subtract,
    And,
    Or,
    ShiftLeft,
    ShiftRight,
    Move,
}

/// When to jump; numbers are unsigned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "they say what they are")]
pub enum Condition {
    Equal,
    Unequal,
    Above,
    Below,
    AnySet,
}

/// A place in a program that can be jumped to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Label(usize);

/// A program while it is written.
#[derive(Debug, Default)]
pub struct Assembler {
    code: Vec<Instruction>,
    places: Vec<Option<usize>>,
    jumps: Vec<(usize, Label)>,
}

const CLASS_LOAD_IMMEDIATE: u8 = 0x00;
const CLASS_LOAD: u8 = 0x01;
const CLASS_STORE_IMMEDIATE: u8 = 0x02;
const CLASS_STORE: u8 = 0x03;
const CLASS_JUMP: u8 = 0x05;
const CLASS_JUMP_WORD: u8 = 0x06;
const CLASS_WORD: u8 = 0x04;
const CLASS_DOUBLE: u8 = 0x07;
const MODE_MEMORY: u8 = 0x60;
const MODE_ATOMIC: u8 = 0xc0;
/// `BPF_X`: the second operand is a register.
const FROM_REGISTER: u8 = 0x08;
const ALWAYS: u8 = 0x00;
const CALL: u8 = 0x80;
const EXIT: u8 = 0x90;
/// `BPF_PSEUDO_MAP_FD`: the constant of a load is a map's descriptor.
const PSEUDO_MAP: u8 = 1;

impl Size {
    fn code(self) -> u8 {
        match self {
            Self::Word => 0x00,
            Self::Half => 0x08,
            Self::Byte => 0x10,
            Self::Double => 0x18,
        }
    }
}

impl Operation {
    fn code(self) -> u8 {
        match self {
            Self::Add => 0x00,
            Self::Subtract => 0x10,
            Self::Or => 0x40,
            Self::And => 0x50,
            Self::ShiftLeft => 0x60,
            Self::ShiftRight => 0x70,
            Self::Move => 0xb0,
        }
    }
}

impl Condition {
    fn code(self) -> u8 {
        match self {
            Self::Equal => 0x10,
            Self::Above => 0x20,
            Self::AnySet => 0x40,
            Self::Unequal => 0x50,
            Self::Below => 0xa0,
        }
    }
}

fn registers(to: Register, from: Register) -> u8 {
    ((from as u8) << 4) | to as u8
}

impl Assembler {
    /// A place that is jumped to and not known yet.
    pub fn label(&mut self) -> Label {
        self.places.push(None);
        Label(self.places.len() - 1)
    }

    /// What comes next is this place.
    pub fn place(&mut self, label: Label) {
        if let Some(place) = self.places.get_mut(label.0) {
            *place = Some(self.code.len());
        }
    }

    fn push(&mut self, code: u8, registers: u8, offset: i16, immediate: i32) {
        self.code.push(Instruction {
            code,
            registers,
            offset,
            immediate,
        });
    }

    /// `to = *(from + offset)`, the upper bits zero.
    pub fn load(&mut self, size: Size, to: Register, from: Register, offset: i16) {
        let code = CLASS_LOAD | MODE_MEMORY | size.code();
        self.push(code, registers(to, from), offset, 0);
    }

    /// `*(to + offset) = from`.
    pub fn store(&mut self, size: Size, to: Register, offset: i16, from: Register) {
        let code = CLASS_STORE | MODE_MEMORY | size.code();
        self.push(code, registers(to, from), offset, 0);
    }

    /// `*(to + offset) = value`.
    pub fn store_number(&mut self, size: Size, to: Register, offset: i16, value: i32) {
        let code = CLASS_STORE_IMMEDIATE | MODE_MEMORY | size.code();
        self.push(code, registers(to, Register::R0), offset, value);
    }

    /// `*(to + offset) += from` of eight bytes, as one step for all processors.
    pub fn add_atomic(&mut self, to: Register, offset: i16, from: Register) {
        let code = CLASS_STORE | MODE_ATOMIC | Size::Double.code();
        self.push(code, registers(to, from), offset, 0);
    }

    /// Computes with a number, which is extended by its sign.
    pub fn compute(&mut self, operation: Operation, to: Register, value: i32) {
        let code = CLASS_DOUBLE | operation.code();
        self.push(code, registers(to, Register::R0), 0, value);
    }

    /// Computes with a number in the lower 32 bits; the upper ones become zero.
    pub fn compute_word(&mut self, operation: Operation, to: Register, value: u32) {
        let code = CLASS_WORD | operation.code();
        self.push(code, registers(to, Register::R0), 0, value.cast_signed());
    }

    /// Computes with a register.
    pub fn combine(&mut self, operation: Operation, to: Register, from: Register) {
        let code = CLASS_DOUBLE | FROM_REGISTER | operation.code();
        self.push(code, registers(to, from), 0, 0);
    }

    /// `to = map`.
    pub fn map(&mut self, to: Register, map: &Map) {
        let code = CLASS_LOAD_IMMEDIATE | Size::Double.code();
        let registers = (PSEUDO_MAP << 4) | to as u8;
        self.push(code, registers, 0, map.as_fd().as_raw_fd());
        self.push(0, 0, 0, 0);
    }

    /// Goes on elsewhere.
    pub fn jump(&mut self, to: Label) {
        self.jumps.push((self.code.len(), to));
        self.push(CLASS_JUMP | ALWAYS, 0, 0, 0);
    }

    /// Goes on elsewhere if all 64 bits compare so with a number, which is extended by its sign.
    pub fn jump_if(&mut self, register: Register, condition: Condition, value: i32, to: Label) {
        self.jumps.push((self.code.len(), to));
        let code = CLASS_JUMP | condition.code();
        self.push(code, registers(register, Register::R0), 0, value);
    }

    /// Goes on elsewhere if the lower 32 bits compare so with a number.
    pub fn jump_if_word(
        &mut self,
        register: Register,
        condition: Condition,
        value: u32,
        to: Label,
    ) {
        self.jumps.push((self.code.len(), to));
        let code = CLASS_JUMP_WORD | condition.code();
        let registers = registers(register, Register::R0);
        self.push(code, registers, 0, value.cast_signed());
    }

    /// Goes on elsewhere if a register compares so with another.
    pub fn jump_if_register(
        &mut self,
        register: Register,
        condition: Condition,
        other: Register,
        to: Label,
    ) {
        self.jumps.push((self.code.len(), to));
        let code = CLASS_JUMP | FROM_REGISTER | condition.code();
        self.push(code, registers(register, other), 0, 0);
    }

    /// Calls a helper of the kernel, by its number (`BPF_FUNC_*`).
    pub fn call(&mut self, helper: i32) {
        self.push(CLASS_JUMP | CALL, 0, 0, helper);
    }

    /// Ends with what is in `R0`.
    pub fn exit(&mut self) {
        self.push(CLASS_JUMP | EXIT, 0, 0, 0);
    }

    /// The program; nothing if a label has no place or is too far away.
    #[must_use]
    pub fn finish(mut self) -> Option<Vec<Instruction>> {
        for (at, label) in self.jumps {
            let place = (*self.places.get(label.0)?)?;
            // From the instruction after the jump.
            let distance = i64::try_from(place).ok()? - i64::try_from(at).ok()? - 1;
            self.code.get_mut(at)?.offset = i16::try_from(distance).ok()?;
        }
        Some(self.code)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jumps_lead_to_their_labels() {
        let mut program = Assembler::default();
        let (again, end) = (program.label(), program.label());
        program.place(again);
        program.compute(Operation::Move, Register::R0, 1);
        program.jump_if(Register::R0, Condition::Equal, 1, end);
        program.jump(again);
        program.place(end);
        program.exit();
        let code = program.finish().unwrap();
        let offsets: Vec<i16> = code.iter().map(|one| one.offset).collect();
        assert_eq!(offsets, [0, 1, -3, 0]);
        assert_eq!(code[0].code, 0xb7);
        assert_eq!(code[1].code, 0x15);
        assert_eq!(code[3].code, 0x95);
    }

    #[test]
    fn a_label_without_a_place_is_no_program() {
        let mut program = Assembler::default();
        let nowhere = program.label();
        program.jump(nowhere);
        assert_eq!(program.finish(), None);
    }
}
