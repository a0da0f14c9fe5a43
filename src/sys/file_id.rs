// SPDX-License-Identifier: MPL-2.0
//! Which file a descriptor refers to.

#[cfg(any(test, feature = "v1_24"))]
use std::{io, os::fd::BorrowedFd};

/// Distinguishes a file from every other existing file, through any descriptor and in any process. Each
/// memfd and, since Linux 5.3, each dma-buf is a file of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FileId {
    pub st_dev: u64,
    pub st_ino: u64,
}

impl FileId {
    #[cfg(any(test, feature = "v1_24"))]
    pub fn of(fd: BorrowedFd<'_>) -> io::Result<Self> {
        let stat = rustix::fs::fstat(fd)?;
        Ok(Self {
            st_dev: stat.st_dev,
            st_ino: stat.st_ino,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    fn a_duplicate_is_the_same_file_and_a_new_one_is_not() {
        let (one, other) = (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
        let id = FileId::of(one.as_fd()).unwrap();
        let duplicate = one.try_clone().unwrap();
        assert_eq!(FileId::of(duplicate.as_fd()).unwrap(), id);
        assert_ne!(FileId::of(other.as_fd()).unwrap(), id);
    }
}
