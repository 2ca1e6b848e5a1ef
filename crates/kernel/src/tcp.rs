//! TCP sockets in repair mode, as a checkpoint program leaves them that was killed.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// Takes a TCP socket out of repair mode (tcp(7) lacks it; the kernel's `include/uapi/linux/tcp.h`):
/// in it, the kernel neither sends nor answers for the socket. True when it was in it. Anything but
/// a TCP socket is left alone.
///
/// # Errors
/// `EPERM` without `CAP_NET_ADMIN` over the socket's network namespace.
pub fn end_repair(socket: impl AsFd) -> io::Result<bool> {
    let descriptor = socket.as_fd().as_raw_fd();
    let mut mode: libc::c_int = 0;
    let mut length = libc::socklen_t::try_from(size_of_val(&mode)).map_err(io::Error::other)?;
    // SAFETY: `mode` and `length` live until the call returns, and `length` is the size of `mode`.
    let read = unsafe {
        libc::getsockopt(
            descriptor,
            libc::IPPROTO_TCP,
            libc::TCP_REPAIR,
            (&raw mut mode).cast::<libc::c_void>(),
            &raw mut length,
        )
    };
    if read != 0 || mode == 0 {
        return Ok(false);
    }
    let off: libc::c_int = 0;
    // SAFETY: `off` lives until the call returns, and `length` is its size: the kernel leaves that
    // of an integer as it was.
    let written = unsafe {
        libc::setsockopt(
            descriptor,
            libc::IPPROTO_TCP,
            libc::TCP_REPAIR,
            (&raw const off).cast::<libc::c_void>(),
            length,
        )
    };
    if written == 0 {
        Ok(true)
    } else {
        Err(io::Error::last_os_error())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_sockets_are_left_alone() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        assert!(!end_repair(&listener).unwrap());
        let (one, _other) = std::os::unix::net::UnixStream::pair().unwrap();
        assert!(!end_repair(&one).unwrap());
        let file = std::fs::File::open("/dev/null").unwrap();
        assert!(!end_repair(&file).unwrap());
    }
}
