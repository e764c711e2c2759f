//! What C code calls that was compiled with `_FORTIFY_SOURCE`.
//!
//! Used by `hooks.rs` beside it and, through `#[path]`, by `patch_details.rs`.

use std::ffi::{c_int, c_void};

unsafe extern "C" {
    pub(crate) fn __read_chk(file: c_int, into: *mut c_void, length: usize, room: usize) -> isize;
    pub(crate) fn __recv_chk(
        socket: c_int,
        into: *mut c_void,
        length: usize,
        room: usize,
        flags: c_int,
    ) -> isize;
    pub(crate) fn __recvfrom_chk(
        socket: c_int,
        into: *mut c_void,
        length: usize,
        room: usize,
        flags: c_int,
        address: *mut libc::sockaddr,
        size: *mut libc::socklen_t,
    ) -> isize;
    pub(crate) fn __poll_chk(
        entries: *mut libc::pollfd,
        count: libc::nfds_t,
        milliseconds: c_int,
        room: usize,
    ) -> c_int;
}
