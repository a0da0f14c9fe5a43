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
#[cfg(any(test, feature = "v1_24"))]
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
pub mod privileges;
pub mod ring;
pub mod sysfs;
pub mod udmabuf;
pub mod uevent;
pub mod vt_guard;

/// Repeats a call that a signal interrupted (EINTR).
fn uninterrupted<T>(mut call: impl FnMut() -> nix::Result<T>) -> nix::Result<T> {
    loop {
        match call() {
            Err(nix::errno::Errno::EINTR) => {}
            result => return result,
        }
    }
}

/// Formats an errno for error messages: "Permission denied (EACCES)".
pub fn describe(error: &std::io::Error) -> String {
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
    fn errno_is_told_in_words_and_by_name() {
        let error = io::Error::from_raw_os_error(libc::ENOMEM);
        assert_eq!(super::describe(&error), "Cannot allocate memory (ENOMEM)");
        let other = io::Error::other("no such number");
        assert_eq!(super::describe(&other), "no such number");
    }
}
