// SPDX-License-Identifier: MPL-2.0
//! Which open file description a descriptor refers to.

use std::os::fd::{AsRawFd, BorrowedFd};

/// Whether two fds of this process refer to one open file description. DRM master status, GEM handles and
/// events belong to that, not to the fd.
pub fn is_same_open_file(a: BorrowedFd<'_>, b: BorrowedFd<'_>) -> bool {
    const KCMP_FILE: libc::c_int = 0;
    let pid = std::process::id() as libc::c_long;
    // SAFETY: kcmp compares two fds of this process and touches no memory.
    let order = unsafe {
        libc::syscall(
            libc::SYS_kcmp,
            pid,
            pid,
            KCMP_FILE,
            a.as_raw_fd() as libc::c_long,
            b.as_raw_fd() as libc::c_long,
        )
    };
    order == 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::os::fd::AsFd;

    #[test]
    fn a_duplicate_is_the_same_open_file_and_another_open_is_not() {
        let a = File::open("/dev/null").unwrap();
        let b = a.try_clone().unwrap();
        let c = File::open("/dev/null").unwrap();
        assert!(is_same_open_file(a.as_fd(), b.as_fd()));
        assert!(!is_same_open_file(a.as_fd(), c.as_fd()));
    }
}
