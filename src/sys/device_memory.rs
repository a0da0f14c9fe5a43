// SPDX-License-Identifier: MPL-2.0
//! Devices whose file is memory at an address that sysfs tells: maps of UIO, buffers of u-dma-buf, memory
//! regions of PCI devices (what a BAR points to). Paths begin at a root directory, which is another one in tests.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Where a device's memory is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PhysRange {
    pub phys: u64,
    pub len_bytes: u64,
}

/// u_dma_buf_ioctl_export_args of u-dma-buf-ioctl.h (u-dma-buf 5.0 and later).
#[repr(C)]
struct UDmaBufExportArgs {
    flags: u64,
    size: u64,
    offset: u64,
    addr: u64,
    fd: i32,
}
const _: () = assert!(size_of::<UDmaBufExportArgs>() == 40 || cfg!(target_arch = "x86"));

mod raw {
    nix::ioctl_readwrite!(u_dma_buf_ioctl_export, b'U', 10, super::UDmaBufExportArgs);
}

/// Opens a device's file, with O_SYNC if `is_sync`.
pub fn open(path: &Path, is_sync: bool) -> io::Result<File> {
    let flags = if is_sync { libc::O_SYNC } else { 0 };
    OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(flags)
        .open(path)
}

/// The directory of a UIO device's map.
pub fn uio_map(root: &Path, name: &str, map: u32) -> PathBuf {
    root.join(format!("sys/class/uio/{name}/maps/map{map}"))
}

/// Where the memory of a UIO map is. `offset` is not 0 if the memory does not begin at a page; the map then
/// begins at the page that holds its first byte.
pub fn uio_range(map: &Path) -> io::Result<PhysRange> {
    let offset = match number(&map.join("offset")) {
        // The file is there since 2.6.32.
        Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
        offset => offset?,
    };
    let range = PhysRange {
        phys: number(&map.join("addr"))?,
        len_bytes: number(&map.join("size"))?,
    };
    Ok(PhysRange {
        phys: range.phys.checked_add(offset).ok_or_else(malformed)?,
        len_bytes: range.len_bytes.saturating_sub(offset),
    })
}

/// The directory of a buffer of the driver u-dma-buf. Before version 3 the class was called udmabuf.
pub fn u_dma_buf(root: &Path, name: &str) -> PathBuf {
    let old = root.join("sys/class/udmabuf").join(name);
    match old.exists() {
        true => old,
        false => root.join("sys/class/u-dma-buf").join(name),
    }
}

pub fn u_dma_buf_range(directory: &Path) -> io::Result<PhysRange> {
    Ok(PhysRange {
        phys: number(&directory.join("phys_addr"))?,
        len_bytes: number(&directory.join("size"))?,
    })
}

/// Exports a part of a buffer of u-dma-buf, in whole pages, as a dma-buf. Fails with ENOTTY if the driver
/// cannot.
pub fn export_u_dma_buf(
    device: BorrowedFd<'_>,
    offset_bytes: u64,
    len_bytes: u64,
) -> io::Result<OwnedFd> {
    let mut args = UDmaBufExportArgs {
        flags: (libc::O_RDWR | libc::O_CLOEXEC) as u64,
        size: len_bytes,
        offset: offset_bytes,
        addr: 0,
        fd: -1,
    };
    // SAFETY: the fd is borrowed and so open, and `args` is a whole u_dma_buf_ioctl_export_args.
    unsafe { raw::u_dma_buf_ioctl_export(device.as_raw_fd(), &mut args) }?;
    if args.fd < 0 {
        return Err(io::Error::from_raw_os_error(libc::EBADF));
    }
    // SAFETY: the driver has just made this fd for this caller alone.
    Ok(unsafe { OwnedFd::from_raw_fd(args.fd) })
}

/// What the file `resource` beside a PCI region's file says of that region.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PciRegion {
    /// `None` for a region that the device does not have, or that has no address.
    pub range: Option<PhysRange>,
    /// The region is memory, not I/O ports.
    pub is_memory: bool,
}

const IORESOURCE_MEM: u64 = 0x200;

pub fn pci_region(resource: &Path, bar: usize) -> io::Result<PciRegion> {
    let text = fs::read_to_string(resource.with_file_name("resource"))?;
    parse_pci_region(&text, bar).ok_or_else(malformed)
}

/// Each line has first address, last address and flags.
fn parse_pci_region(resource: &str, bar: usize) -> Option<PciRegion> {
    let mut words = resource.lines().nth(bar)?.split_whitespace();
    let mut word = || parse_number(words.next()?);
    let (first, last, flags) = (word()?, word()?, word()?);
    let range = (first != 0 && last >= first).then(|| PhysRange {
        phys: first,
        len_bytes: (last - first).saturating_add(1),
    });
    Some(PciRegion {
        range,
        is_memory: flags & IORESOURCE_MEM != 0,
    })
}

/// Whether a PCI device answers at its memory addresses, by its command register. `None` if that cannot be
/// read.
pub fn pci_memory_is_on(resource: &Path) -> Option<bool> {
    const COMMAND: usize = 4;
    const COMMAND_MEMORY: u8 = 1 << 1;
    let config = fs::read(resource.with_file_name("config")).ok()?;
    Some(config.get(COMMAND)? & COMMAND_MEMORY != 0)
}

/// Reads a number, in hex after 0x, else decimal.
fn number(path: &Path) -> io::Result<u64> {
    parse_number(fs::read_to_string(path)?.trim()).ok_or_else(malformed)
}

fn parse_number(text: &str) -> Option<u64> {
    match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    }
}

fn malformed() -> io::Error {
    io::Error::from_raw_os_error(libc::EPROTO)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_regions_of_a_pci_device_are_told_apart() {
        // ivshmem-plain, and a device with I/O ports.
        let text = "\
0x00000000febd1000 0x00000000febd10ff 0x0000000000040200\n\
0x0000000000000000 0x0000000000000000 0x0000000000000000\n\
0x00000000fe000000 0x00000000fe3fffff 0x000000000014220c\n\
0x0000000000000000 0x0000000000000000 0x0000000000000000\n\
0x000000000000c000 0x000000000000c03f 0x0000000000040101\n";
        let region = |bar| parse_pci_region(text, bar);
        let memory = PhysRange {
            phys: 0xfe00_0000,
            len_bytes: 4 << 20,
        };
        assert_eq!(
            region(2),
            Some(PciRegion {
                range: Some(memory),
                is_memory: true
            })
        );
        assert_eq!(region(1).unwrap().range, None);
        assert!(!region(4).unwrap().is_memory);
        assert_eq!(region(5), None);
        assert_eq!(parse_pci_region("0x1 0x2", 0), None);
    }

    #[test]
    fn a_uio_map_begins_at_the_first_byte_of_the_device() {
        let root = tempfile::tempdir().unwrap();
        let map = uio_map(root.path(), "uio0", 1);
        fs::create_dir_all(&map).unwrap();
        fs::write(map.join("addr"), "0x00000000a0000000\n").unwrap();
        fs::write(map.join("size"), "0x0000000000010000\n").unwrap();
        let whole = PhysRange {
            phys: 0xa000_0000,
            len_bytes: 0x10000,
        };
        assert_eq!(uio_range(&map).unwrap(), whole);
        fs::write(map.join("offset"), "0x100\n").unwrap();
        let rest = PhysRange {
            phys: 0xa000_0100,
            len_bytes: 0xff00,
        };
        assert_eq!(uio_range(&map).unwrap(), rest);
        fs::write(map.join("size"), "many\n").unwrap();
        let error = uio_range(&map).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EPROTO));
    }

    #[test]
    fn both_classes_of_u_dma_buf_are_found() {
        let root = tempfile::tempdir().unwrap();
        let new = root.path().join("sys/class/u-dma-buf/udmabuf0");
        assert_eq!(u_dma_buf(root.path(), "udmabuf0"), new);
        let old = root.path().join("sys/class/udmabuf/udmabuf1");
        for (directory, size) in [(&new, "1048576\n"), (&old, "4096\n")] {
            fs::create_dir_all(directory).unwrap();
            fs::write(directory.join("phys_addr"), "0x000000001f900000\n").unwrap();
            fs::write(directory.join("size"), size).unwrap();
        }
        let range = |name| u_dma_buf_range(&u_dma_buf(root.path(), name)).unwrap();
        assert_eq!(range("udmabuf0").len_bytes, 1 << 20);
        assert_eq!(range("udmabuf1").len_bytes, 4096);
        assert_eq!(range("udmabuf1").phys, 0x1f90_0000);
    }

    #[test]
    fn a_file_that_is_no_u_dma_buf_has_no_dma_buf() {
        use std::os::fd::AsFd;
        let file = tempfile::tempfile().unwrap();
        let error = export_u_dma_buf(file.as_fd(), 0, 4096).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ENOTTY));
    }
}
