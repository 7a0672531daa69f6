//! The socket options that nix lacks.
#![expect(unsafe_code, reason = "setsockopt takes pointers")]

use std::{
    io,
    os::fd::{AsFd, AsRawFd as _},
};

use libc::{c_int, c_ushort, sock_filter, sock_fprog, socklen_t};

/// Sets an option that is a number.
pub fn set(socket: impl AsFd, level: c_int, option: c_int, value: c_int) -> io::Result<()> {
    // SAFETY: an int, which the kernel copies.
    unsafe { set_raw(socket, level, option, &value) }
}

/// Has the kernel keep only what a classic BPF program says (socket(7)).
pub fn attach_filter(socket: impl AsFd, program: &[sock_filter]) -> io::Result<()> {
    let len = c_ushort::try_from(program.len()).map_err(io::Error::other)?;
    let filter = sock_fprog { len, filter: program.as_ptr().cast_mut() };
    // SAFETY: the program lives through the call and is as long as it says; the kernel copies it.
    unsafe { set_raw(socket, libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, &filter) }
}

/// # Safety
///
/// `T` is what the option takes, and what it points to is valid.
unsafe fn set_raw<T>(socket: impl AsFd, level: c_int, option: c_int, value: &T) -> io::Result<()> {
    let fd = socket.as_fd().as_raw_fd();
    let len = socklen_t::try_from(size_of::<T>()).map_err(io::Error::other)?;
    // SAFETY: the value lives through the call, the length is its size; the rest is the caller's promise.
    let result = unsafe { libc::setsockopt(fd, level, option, (&raw const *value).cast(), len) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
