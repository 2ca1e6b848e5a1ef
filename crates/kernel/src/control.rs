//! The shapes that control requests (`ioctl`) have, so that each caller states one promise only.

use std::ffi::c_void;
use std::io;
use std::os::fd::BorrowedFd;

use rustix::ioctl::{Getter, IntegerSetter, Ioctl, IoctlOutput, Opcode, Setter, Updater, ioctl};

/// Sends a request that reads a `T` and writes nothing back.
///
/// # Safety
/// `REQUEST` must read at most a `T`, and every pointer in `argument` must stay valid for what the
/// request reads through it until this function returns.
pub(crate) unsafe fn write<const REQUEST: Opcode, T>(
    fd: BorrowedFd<'_>,
    argument: T,
) -> io::Result<()> {
    // SAFETY: the caller promises that REQUEST reads at most a T.
    let request = unsafe { Setter::<REQUEST, T>::new(argument) };
    // SAFETY: the caller promises that pointers inside the argument outlive this call.
    unsafe { ioctl(fd, request) }.map_err(io::Error::from)
}

/// Sends a request that reads a `T` and may overwrite it.
///
/// # Safety
/// `REQUEST` must read and write at most a `T`, hold no pointers in it, and leave a valid `T` whatever the
/// kernel writes.
pub(crate) unsafe fn update<const REQUEST: Opcode, T>(
    fd: BorrowedFd<'_>,
    argument: &mut T,
) -> io::Result<()> {
    // SAFETY: the caller promises that REQUEST reads and writes at most a T.
    let request = unsafe { Updater::<REQUEST, T>::new(argument) };
    // SAFETY: the caller promises that any bytes the kernel leaves are a valid T.
    unsafe { ioctl(fd, request) }.map_err(io::Error::from)
}

/// Sends a request that fills a `T`.
///
/// # Safety
/// `REQUEST` must fill the whole of a `T`, for which every bit pattern is valid, and write no more.
pub(crate) unsafe fn read<const REQUEST: Opcode, T>(fd: BorrowedFd<'_>) -> io::Result<T> {
    // SAFETY: the caller promises that REQUEST fills exactly a T.
    let request = unsafe { Getter::<REQUEST, T>::new() };
    // SAFETY: the caller promises that any bytes the kernel leaves are a valid T.
    unsafe { ioctl(fd, request) }.map_err(io::Error::from)
}

/// Sends a request whose argument is a plain number.
///
/// # Safety
/// `REQUEST` must take its argument by value and touch no memory of this process.
pub(crate) unsafe fn number<const REQUEST: Opcode>(
    fd: BorrowedFd<'_>,
    argument: usize,
) -> io::Result<()> {
    // SAFETY: the caller promises that REQUEST takes a number and no pointer.
    let request = unsafe { IntegerSetter::<REQUEST>::new_usize(argument) };
    // SAFETY: no memory is involved, as the caller promises.
    unsafe { ioctl(fd, request) }.map_err(io::Error::from)
}

/// Sends a request without argument that answers with a number.
///
/// # Safety
/// `REQUEST` must take no argument and touch no memory of this process.
pub(crate) unsafe fn answer<const REQUEST: Opcode>(fd: BorrowedFd<'_>) -> io::Result<i32> {
    // SAFETY: no memory is involved, as the caller promises.
    unsafe { ioctl(fd, Answer::<REQUEST>) }.map_err(io::Error::from)
}

/// A request without argument whose result is its answer.
struct Answer<const REQUEST: Opcode>;

// SAFETY: `as_ptr` hands out null, which the requests that `answer` is for do not follow, and
// `output_from_ptr` reads through no pointer.
unsafe impl<const REQUEST: Opcode> Ioctl for Answer<REQUEST> {
    type Output = i32;
    const IS_MUTATING: bool = false;

    fn opcode(&self) -> Opcode {
        REQUEST
    }

    fn as_ptr(&mut self) -> *mut c_void {
        std::ptr::null_mut()
    }

    unsafe fn output_from_ptr(
        result: IoctlOutput,
        _argument: *mut c_void,
    ) -> rustix::io::Result<Self::Output> {
        Ok(result)
    }
}
