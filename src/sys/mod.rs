// SPDX-License-Identifier: MPL-2.0
//! Kernel interfaces, under the kernel's names. No other module makes an ioctl or maps memory by itself.
//! Errors are returned as `io::Error`, and the callers make sentences of them.

pub mod cgroup;
pub mod clock;
pub mod cma_trace;
pub mod console;
pub mod device_memory;
pub mod direct_io;
pub mod dma_buf;
pub mod dma_heap;
pub mod fbdev;
#[cfg(any(test, fuzzing, feature = "v1_24"))]
pub mod file_id;
pub mod file_map;
pub mod iomem;
pub mod large_page;
pub mod maps;
pub mod memfd;
pub mod meminfo;
pub mod mmap;
pub mod open_file;
pub mod page;
pub mod page_cache;
pub mod pagemap;
pub mod pin;
pub mod private_socket;
pub mod privileges;
pub mod ring;
pub mod seat;
pub mod sync_file;
pub mod sysfs;
pub mod udmabuf;
pub mod uevent;
pub mod vt_guard;

use std::{
    fs::File,
    io::{self, Read},
    path::Path,
};

/// Repeats a call that a signal interrupted (EINTR).
fn uninterrupted<T>(mut call: impl FnMut() -> nix::Result<T>) -> nix::Result<T> {
    loop {
        match call() {
            Err(nix::errno::Errno::EINTR) => {}
            result => return result,
        }
    }
}

/// Reads a file of /proc or /sys. These tell no size, for which `fs::read_to_string` begins with reads of a few
/// bytes, and the kernel makes such a file anew for each.
pub fn read_kernel_file(path: impl AsRef<Path>) -> io::Result<String> {
    let mut text = String::with_capacity(8 << 10);
    File::open(path)?.read_to_string(&mut text)?;
    Ok(text)
}

/// Formats an errno for error messages: "Permission denied (EACCES)".
pub fn describe(error: &io::Error) -> String {
    let text = error.to_string();
    match error.raw_os_error().map(nix::errno::Errno::from_raw) {
        // The C library's text, which people search for, without "(os error 13)".
        Some(errno) => {
            let words = text.split(" (os error").next().unwrap_or_default();
            format!("{words} ({errno:?})")
        }
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    #[test]
    fn a_file_of_any_length_is_read_whole() {
        let file = tempfile::NamedTempFile::new().unwrap();
        for len in [0, 1, 8 << 10, 100_000] {
            let text = "x".repeat(len);
            std::fs::write(file.path(), &text).unwrap();
            assert_eq!(super::read_kernel_file(file.path()).unwrap(), text);
        }
    }

    #[test]
    fn errno_is_told_in_words_and_by_name() {
        let error = io::Error::from_raw_os_error(libc::ENOMEM);
        assert_eq!(super::describe(&error), "Cannot allocate memory (ENOMEM)");
        let other = io::Error::other("no such number");
        assert_eq!(super::describe(&other), "no such number");
    }
}
