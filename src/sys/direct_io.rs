// SPDX-License-Identifier: MPL-2.0
//! O_DIRECT, and the alignment that it requires.

use std::{
    fs::File,
    io,
    os::{fd::AsRawFd, unix::fs::OpenOptionsExt},
};

/// What an O_DIRECT transfer must be a multiple of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Alignment {
    /// Alignment of buffer addresses.
    pub mem_bytes: usize,
    /// Alignment of file offsets and lengths.
    pub offset_bytes: u64,
    /// Whether the file system has said so. Those that read from a disk do from Linux 6.1 on; others may
    /// open a file with O_DIRECT, and then read through the page cache all the same (tmpfs).
    pub is_reported: bool,
}

/// Kernels before 6.1 do not report the alignment, and support no larger blocks.
const UNKNOWN: Alignment = Alignment {
    mem_bytes: 4096,
    offset_bytes: 4096,
    is_reported: false,
};

/// Opens the same file again without the page cache. Fails with EINVAL if the file system cannot do that.
pub fn reopen_direct(file: &File) -> io::Result<(File, Alignment)> {
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    let direct = File::options()
        .read(true)
        .custom_flags(libc::O_DIRECT)
        .open(path)?;
    let alignment = alignment(&direct)?;
    Ok((direct, alignment))
}

fn alignment(file: &File) -> io::Result<Alignment> {
    // SAFETY: statx is plain data, for which zeroes are a valid value.
    let mut stat: libc::statx = unsafe { std::mem::zeroed() };
    // SAFETY: the path is an empty C string, with which AT_EMPTY_PATH means the descriptor itself, and the
    // kernel writes one struct statx.
    let rc = unsafe {
        libc::statx(
            file.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            libc::STATX_DIOALIGN,
            &mut stat,
        )
    };
    if rc != 0 || stat.stx_mask & libc::STATX_DIOALIGN == 0 {
        return Ok(UNKNOWN);
    }
    if stat.stx_dio_offset_align == 0 {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    Ok(Alignment {
        mem_bytes: stat.stx_dio_mem_align.max(1) as usize,
        offset_bytes: stat.stx_dio_offset_align.into(),
        is_reported: true,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn alignments_are_powers_of_two() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&[1; 10_000]).unwrap();
        match reopen_direct(&file) {
            Ok((_, alignment)) => {
                assert!(alignment.mem_bytes.is_power_of_two());
                assert!(alignment.offset_bytes.is_power_of_two());
            }
            Err(error) => println!("SKIPPED: no O_DIRECT on this file system: {error}"),
        }
    }
}
