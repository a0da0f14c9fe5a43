// SPDX-License-Identifier: MPL-2.0
//! Kernel interfaces: the only home of ioctl and mmap. Names are the kernel's
//! own; everything returns `io::Result` and is translated above.

pub mod cma_trace;
pub mod console;
pub mod dma_buf;
pub mod dma_heap;
pub mod fbdev;
pub mod memfd;
pub mod meminfo;
pub mod mmap;
pub mod pagemap;
pub mod pin;
pub mod udmabuf;

/// "Permission denied (EACCES)": what every error sentence says of an errno.
pub fn describe(error: &std::io::Error) -> String {
    match error.raw_os_error().map(nix::errno::Errno::from_raw) {
        Some(errno) => format!("{} ({errno:?})", errno.desc()),
        None => error.to_string(),
    }
}
