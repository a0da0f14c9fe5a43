// SPDX-License-Identifier: MPL-2.0
//! From a name to an area: the file that maps it, its physical addresses, and whether both may be believed.

use std::io;
use std::path::{Path, PathBuf};

use crate::address::AddressSource;
use crate::memory::area_name::{AreaName, Device, Part, Place};
use crate::memory::claims::Span;
use crate::memory::error::MemoryError;
use crate::memory::remedy;
use crate::sys::device_memory::{self, PhysRange};

/// Physical memory that can be mapped, in whole pages.
#[derive(Debug)]
pub struct Area {
    pub span: Span,
    pub source: AddressSource,
    /// The device's file.
    pub file: PathBuf,
    pub window: Window,
    pub is_sync: bool,
    /// The driver u-dma-buf exports parts of the area as dma-bufs. Its offsets are those of the window.
    pub is_u_dma_buf: bool,
    /// What keeps the memory in place.
    pub pin_note: &'static str,
}

/// What of the file shows the area.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Window {
    /// The file's bytes from this offset on are the area, and each part can be mapped alone.
    Offset(u64),
    /// A mapping at this offset always begins with the first byte of the device, so it is made once for
    /// all: UIO takes the offset for the number of a map. The area begins at `lead_bytes` of the mapping.
    Whole { offset: u64, lead_bytes: u64 },
}

const NOT_OF_THE_KERNEL: &str = "memory at a fixed address, which is not the kernel's to move";

/// Finds the area of a name. `root` is the directory that stands for `/`.
pub fn find(root: &Path, name: AreaName<'_>, page_bytes: u64) -> Result<Area, MemoryError> {
    let is_sync = name.is_sync;
    match name.place {
        Place::Memory(part) => {
            let object = "/dev/mem";
            must_be_aligned(object, part, page_bytes)?;
            let span = Span::new(part.offset_bytes, part.len_bytes).ok_or_else(|| {
                MemoryError::OutsideOfDevice {
                    object: object.to_owned(),
                    offset_bytes: part.offset_bytes,
                    len_bytes: part.len_bytes,
                    device_bytes: u64::MAX,
                }
            })?;
            Ok(Area {
                span,
                source: AddressSource::User,
                file: root.join("dev/mem"),
                window: Window::Offset(part.offset_bytes),
                is_sync,
                is_u_dma_buf: false,
                pin_note: NOT_OF_THE_KERNEL,
            })
        }
        Place::Device { device, part } => {
            let area = of_device(root, device, is_sync)?;
            area.cut(part, page_bytes)
        }
    }
}

/// A whole device, which may begin or end within a page.
struct DeviceArea {
    /// The device's name in messages.
    object: String,
    range: PhysRange,
    area: Area,
}

fn of_device(root: &Path, device: Device<'_>, is_sync: bool) -> Result<DeviceArea, MemoryError> {
    let made = |object: String, range: PhysRange, file: PathBuf, window: Window| {
        let span = Span::new(range.phys, range.len_bytes).filter(|span| span.first() != 0);
        let span = span.ok_or_else(|| MemoryError::NoDeviceAddress {
            object: object.clone(),
        })?;
        Ok(DeviceArea {
            area: Area {
                span,
                source: AddressSource::Sysfs,
                file,
                window,
                is_sync,
                is_u_dma_buf: matches!(device, Device::UDmaBuf { .. }),
                pin_note: match device {
                    Device::UDmaBuf { .. } => "allocated by u-dma-buf, which never moves it",
                    _ => NOT_OF_THE_KERNEL,
                },
            },
            object,
            range,
        })
    };
    match device {
        Device::Uio { name, map } => {
            let directory = device_memory::uio_map(root, name, map);
            let range = device_memory::uio_range(&directory).map_err(|source| {
                unknown_device(
                    &directory,
                    source,
                    "the device has no such map, or no UIO driver is bound to it",
                )
            })?;
            made(
                format!("/dev/{name}:map{map}"),
                range,
                root.join("dev").join(name),
                Window::Whole {
                    offset: u64::from(map),
                    lead_bytes: 0,
                },
            )
        }
        Device::UDmaBuf { name } => {
            let directory = device_memory::u_dma_buf(root, name);
            let range = device_memory::u_dma_buf_range(&directory).map_err(|source| {
                unknown_device(
                    &directory,
                    source,
                    "it is no buffer of the driver u-dma-buf, or the driver is not loaded",
                )
            })?;
            made(
                format!("/dev/{name}"),
                range,
                root.join("dev").join(name),
                Window::Offset(0),
            )
        }
        Device::PciBar { path, bar } => {
            let file = root.join(path.trim_start_matches('/'));
            let missing = "there is no such PCI device, or it has no such region of memory \
                           (resource2_wc is there for prefetchable regions only)";
            let refused = |source| unknown_device(&file, source, missing);
            file.metadata().map_err(refused)?;
            let region = device_memory::pci_region(&file, bar).map_err(refused)?;
            if !region.is_memory {
                return Err(MemoryError::NotMemory {
                    object: path.to_owned(),
                });
            }
            let range = region.range.ok_or_else(|| MemoryError::NoDeviceAddress {
                object: path.to_owned(),
            })?;
            if device_memory::pci_memory_is_on(&file) == Some(false) {
                return Err(MemoryError::DeviceIsOff {
                    object: path.to_owned(),
                    switch: file.with_file_name("enable"),
                });
            }
            made(path.to_owned(), range, file, Window::Offset(0))
        }
    }
}

impl DeviceArea {
    /// The part of the device that was asked for, or all of its whole pages.
    fn cut(self, part: Option<Part>, page_bytes: u64) -> Result<Area, MemoryError> {
        let whole = self.area.span;
        let part = match part {
            Some(part) => {
                must_be_aligned(&self.object, part, page_bytes)?;
                part
            }
            None => {
                // A map begins at the page that holds the first byte. That page may have bytes of another
                // device before the first byte, as may the last page behind the last byte.
                let lead = whole.first().wrapping_neg() & (page_bytes - 1);
                let rest = self.range.len_bytes.saturating_sub(lead);
                Part {
                    offset_bytes: lead,
                    len_bytes: rest - rest % page_bytes,
                }
            }
        };
        let outside = || MemoryError::OutsideOfDevice {
            object: self.object.clone(),
            offset_bytes: part.offset_bytes,
            len_bytes: part.len_bytes,
            device_bytes: self.range.len_bytes,
        };
        if part.len_bytes == 0 {
            return Err(MemoryError::LessThanAPage {
                object: self.object,
                device_bytes: self.range.len_bytes,
            });
        }
        let span = whole
            .first()
            .checked_add(part.offset_bytes)
            .and_then(|first| Span::new(first, part.len_bytes))
            .filter(|span| span.last() <= whole.last())
            .ok_or_else(outside)?;
        if !span.first().is_multiple_of(page_bytes) {
            return Err(MemoryError::NotAtAPage {
                object: self.object,
                page_bytes,
            });
        }
        // The mapping begins at the page that holds the first byte of the device.
        let before = span.first() - (whole.first() - whole.first() % page_bytes);
        Ok(Area {
            span,
            window: match self.area.window {
                Window::Offset(offset) => Window::Offset(offset + before),
                Window::Whole { offset, .. } => Window::Whole {
                    offset: offset.saturating_mul(page_bytes),
                    lead_bytes: before,
                },
            },
            ..self.area
        })
    }
}

fn must_be_aligned(object: &str, part: Part, page_bytes: u64) -> Result<(), MemoryError> {
    let is_aligned =
        part.offset_bytes.is_multiple_of(page_bytes) && part.len_bytes.is_multiple_of(page_bytes);
    match is_aligned {
        true => Ok(()),
        false => Err(MemoryError::PartNotAligned {
            object: object.to_owned(),
            offset_bytes: part.offset_bytes,
            len_bytes: part.len_bytes,
            page_bytes,
        }),
    }
}

fn unknown_device(path: &Path, source: io::Error, missing: &str) -> MemoryError {
    MemoryError::Refused {
        object: path.display().to_string(),
        remedy: remedy::for_device(path, &source, missing),
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    const PAGE: u64 = 4096;

    fn write(root: &Path, file: &str, text: &str) {
        let path = root.join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn found(root: &Path, name: &str) -> Result<Area, MemoryError> {
        find(root, AreaName::parse(name).unwrap(), PAGE)
    }

    #[track_caller]
    fn refused(root: &Path, name: &str, words: &[&str]) {
        let error = found(root, name).unwrap_err().to_string();
        for word in words {
            assert!(error.contains(word), "no {word:?} in {error}");
        }
    }

    #[test]
    fn parts_of_a_uio_map_are_counted_from_its_first_byte() {
        let root = tempfile::tempdir().unwrap();
        let map = "sys/class/uio/uio0/maps/map1/";
        write(root.path(), &format!("{map}addr"), "0xa0000000\n");
        write(root.path(), &format!("{map}size"), "0x10000\n");
        write(root.path(), &format!("{map}offset"), "0x0\n");
        let area = found(root.path(), "/dev/uio0:map1").unwrap();
        assert_eq!(area.span, Span::new(0xa000_0000, 0x10000).unwrap());
        assert_eq!(area.source, AddressSource::Sysfs);
        assert_eq!(area.file, root.path().join("dev/uio0"));
        let window = |lead_bytes| Window::Whole {
            offset: PAGE,
            lead_bytes,
        };
        assert_eq!(area.window, window(0));
        let area = found(root.path(), "/dev/uio0:map1@8K+4K,sync").unwrap();
        assert_eq!(area.span, Span::new(0xa000_2000, 0x1000).unwrap());
        assert_eq!((area.window, area.is_sync), (window(0x2000), true));
        refused(
            root.path(),
            "/dev/uio0:map1@60K+8K",
            &["65536 bytes", "0xf000"],
        );
        refused(root.path(), "/dev/uio0:map1@64K+4K", &["65536 bytes"]);
        refused(root.path(), "/dev/uio0:map1@100+4K", &["page size", "4096"]);
        refused(root.path(), "/dev/uio0:map1@0+100", &["page size"]);
        refused(
            root.path(),
            "/dev/uio0:map2",
            &["maps/map2", "ENOENT", "no such map"],
        );
        refused(root.path(), "/dev/uio1:map0", &["uio1", "ENOENT"]);
    }

    #[test]
    fn a_device_that_begins_within_a_page_gives_its_whole_pages() {
        let root = tempfile::tempdir().unwrap();
        let map = "sys/class/uio/uio0/maps/map0/";
        write(root.path(), &format!("{map}addr"), "0xa0000000\n");
        write(root.path(), &format!("{map}size"), "0x3200\n");
        write(root.path(), &format!("{map}offset"), "0x100\n");
        let area = found(root.path(), "/dev/uio0:map0").unwrap();
        assert_eq!(area.span, Span::new(0xa000_1000, 0x2000).unwrap());
        let window = Window::Whole {
            offset: 0,
            lead_bytes: PAGE,
        };
        assert_eq!(area.window, window);
        refused(root.path(), "/dev/uio0:map0@0+4K", &["begin at a page"]);
        write(root.path(), &format!("{map}size"), "0x200\n");
        refused(root.path(), "/dev/uio0:map0", &["/dev/uio0:map0", "page"]);
    }

    #[test]
    fn a_buffer_of_u_dma_buf_is_where_the_driver_says() {
        let root = tempfile::tempdir().unwrap();
        let class = "sys/class/u-dma-buf/udmabuf0/";
        write(
            root.path(),
            &format!("{class}phys_addr"),
            "0x000000001f900000\n",
        );
        write(root.path(), &format!("{class}size"), "1048576\n");
        let area = found(root.path(), "/dev/udmabuf0").unwrap();
        assert_eq!(area.span, Span::new(0x1f90_0000, 1 << 20).unwrap());
        assert!(area.is_u_dma_buf);
        let area = found(root.path(), "/dev/udmabuf0@512K+4K").unwrap();
        assert_eq!(area.span, Span::new(0x1f98_0000, 4096).unwrap());
        assert_eq!(area.window, Window::Offset(512 << 10));
        refused(
            root.path(),
            "/dev/udmabuf0@0+2M",
            &["/dev/udmabuf0", "1048576"],
        );
        refused(
            root.path(),
            "/dev/udmabuf1",
            &["u-dma-buf/udmabuf1", "ENOENT", "not loaded"],
        );
        write(root.path(), &format!("{class}phys_addr"), "0x0\n");
        refused(root.path(), "/dev/udmabuf0", &["no physical address"]);
    }

    #[test]
    fn a_pci_region_must_be_memory_that_answers() {
        let root = tempfile::tempdir().unwrap();
        let device = "sys/bus/pci/devices/0000:00:04.0/";
        let name = |file| format!("/{device}{file}");
        write(
            root.path(),
            &format!("{device}resource"),
            "0xfebd1000 0xfebd10ff 0x40200\n0x0 0x0 0x0\n0xfe000000 0xfe3fffff 0x14220c\n\
             0xc000 0xc03f 0x40101\n0x0 0x0 0x200\n",
        );
        for file in [
            "resource0",
            "resource2",
            "resource2_wc",
            "resource3",
            "resource4",
        ] {
            write(root.path(), &format!("{device}{file}"), "");
        }
        let area = found(root.path(), &name("resource2_wc@1M+1M")).unwrap();
        assert_eq!(area.span, Span::new(0xfe10_0000, 1 << 20).unwrap());
        assert_eq!(area.window, Window::Offset(1 << 20));
        assert!(area.file.ends_with("resource2_wc"));
        refused(root.path(), &name("resource0"), &["256 bytes", "page"]);
        refused(root.path(), &name("resource3"), &["I/O ports"]);
        refused(root.path(), &name("resource4"), &["no physical address"]);
        refused(
            root.path(),
            &name("resource5"),
            &["ENOENT", "no such region"],
        );
        refused(
            root.path(),
            "/sys/bus/pci/devices/0000:00:05.0/resource2",
            &["0000:00:05.0", "ENOENT", "no such PCI device"],
        );
        // The command register of a device that is switched off.
        write(
            root.path(),
            &format!("{device}config"),
            "\u{1}\u{1}\u{1}\u{1}\u{4}\0",
        );
        refused(
            root.path(),
            &name("resource2"),
            &["switched off", "/enable"],
        );
        write(
            root.path(),
            &format!("{device}config"),
            "\u{1}\u{1}\u{1}\u{1}\u{6}\0",
        );
        assert!(found(root.path(), &name("resource2")).is_ok());
    }

    #[test]
    fn an_address_in_dev_mem_is_taken_at_its_word() {
        let root = tempfile::tempdir().unwrap();
        let area = found(root.path(), "/dev/mem@0x30000000+64M").unwrap();
        assert_eq!(area.span, Span::new(0x3000_0000, 64 << 20).unwrap());
        assert_eq!(area.source, AddressSource::User);
        assert_eq!(area.window, Window::Offset(0x3000_0000));
        refused(
            root.path(),
            "/dev/mem@0x30000100+64M",
            &["/dev/mem", "0x30000100", "page size"],
        );
    }
}
