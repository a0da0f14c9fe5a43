// SPDX-License-Identifier: MPL-2.0
//! The names of areas of physical memory, which requests of kind region give as their heap. Pure.

/// The forms of a name, for messages.
pub const FORMS: &str = "/dev/mem@0x30000000+64M (address and length), /dev/uio0:map0, /dev/udmabuf0 (u-dma-buf), \
     /sys/bus/pci/devices/0000:00:04.0/resource2 (or resource2_wc), each of the last three with @OFFSET+LENGTH \
     for a part of it, and all of them with ,sync to be opened with O_SYNC";

/// What a name says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AreaName<'a> {
    pub place: Place<'a>,
    /// The device is to be opened with O_SYNC.
    pub is_sync: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place<'a> {
    /// These physical addresses, by /dev/mem.
    Memory(Part),
    /// A device's memory, or a part of it.
    Device {
        device: Device<'a>,
        part: Option<Part>,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Device<'a> {
    /// A map of a device of the kernel's UIO: `uio0` and the map's number.
    Uio { name: &'a str, map: u32 },
    /// A buffer of the driver u-dma-buf: its name below /dev.
    UDmaBuf { name: &'a str },
    /// A PCI device's region of memory: the file in sysfs and the region's number.
    PciBar { path: &'a str, bar: usize },
}

/// A range of bytes, which is not empty and does not run past 2^64.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    pub offset_bytes: u64,
    pub len_bytes: u64,
}

/// What is wrong with a name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    #[error("it has none of the forms")]
    UnknownForm,
    #[error("only ,sync may follow a comma, not \"{0}\"")]
    UnknownOption(String),
    #[error("\"{0}\" is no number (0x and hex digits, or decimal digits, then K, M or G at most)")]
    NotANumber(String),
    #[error("\"{0}\" is 2^64 or more")]
    TooLarge(String),
    #[error("a + and the length must follow \"@{0}\"")]
    NoLength(String),
    #[error("the length is 0")]
    NoBytes,
    #[error("{len_bytes} bytes from {offset_bytes:#x} on run past the last address")]
    Wraps { offset_bytes: u64, len_bytes: u64 },
    #[error("address 0 is not accepted, because 0 stands for an unknown address")]
    AddressZero,
    #[error("/dev/mem is all of memory: @ADDRESS+LENGTH must say which part of it")]
    NoAddress,
    #[error("a UIO device has several maps: :map0 must say which of them")]
    NoMap,
    #[error("a PCI device has the regions resource0 to resource5")]
    NoBar,
    #[error(
        "/dev/udmabuf without a number is the kernel's own driver, which has no memory: it is used by kind udmabuf"
    )]
    KernelUdmabuf,
}

const PCI_BARS: usize = 6;

impl<'a> AreaName<'a> {
    pub fn parse(name: &'a str) -> Result<Self, NameError> {
        let (place, is_sync) = match name.split_once(',') {
            None => (name, false),
            Some((place, "sync")) => (place, true),
            Some((_, option)) => return Err(NameError::UnknownOption(option.to_owned())),
        };
        let (path, part) = match place.split_once('@') {
            None => (place, None),
            Some((path, part)) => (path, Some(parse_part(part)?)),
        };
        let place = match path {
            "/dev/mem" => {
                let part = part.ok_or(NameError::NoAddress)?;
                if part.offset_bytes == 0 {
                    return Err(NameError::AddressZero);
                }
                Place::Memory(part)
            }
            _ => Place::Device {
                device: parse_device(path)?,
                part,
            },
        };
        Ok(Self { place, is_sync })
    }
}

fn parse_device(path: &str) -> Result<Device<'_>, NameError> {
    if let Some((_, file)) = path
        .strip_prefix("/sys/")
        .and_then(|below| below.rsplit_once('/'))
    {
        let number = file
            .strip_prefix("resource")
            .ok_or(NameError::UnknownForm)?;
        let number = number.strip_suffix("_wc").unwrap_or(number);
        let bar = decimal(number).filter(|&bar| (bar as usize) < PCI_BARS);
        let bar = bar.ok_or(NameError::NoBar)? as usize;
        return Ok(Device::PciBar { path, bar });
    }
    let name = path.strip_prefix("/dev/").ok_or(NameError::UnknownForm)?;
    if name.contains('/') || name.starts_with('.') || name.is_empty() {
        return Err(NameError::UnknownForm);
    }
    let is_uio = |name: &str| name.strip_prefix("uio").and_then(decimal).is_some();
    match name.split_once(':') {
        Some((name, map)) if is_uio(name) => {
            let map = map.strip_prefix("map").and_then(decimal);
            let map = map.ok_or(NameError::NoMap)?;
            Ok(Device::Uio { name, map })
        }
        None if is_uio(name) => Err(NameError::NoMap),
        None if name == "udmabuf" => Err(NameError::KernelUdmabuf),
        // The name of a buffer is free: it may come from the property `device-name` of the device tree.
        None => Ok(Device::UDmaBuf { name }),
        Some(_) => Err(NameError::UnknownForm),
    }
}

/// A number of few digits, without a sign.
fn decimal(digits: &str) -> Option<u32> {
    let is_plain = !digits.is_empty() && digits.bytes().all(|digit| digit.is_ascii_digit());
    is_plain.then(|| digits.parse().ok()).flatten()
}

fn parse_part(part: &str) -> Result<Part, NameError> {
    let (offset, len) = part
        .split_once('+')
        .ok_or_else(|| NameError::NoLength(part.to_owned()))?;
    let (offset_bytes, len_bytes) = (parse_number(offset)?, parse_number(len)?);
    let last = len_bytes.checked_sub(1).ok_or(NameError::NoBytes)?;
    offset_bytes.checked_add(last).ok_or(NameError::Wraps {
        offset_bytes,
        len_bytes,
    })?;
    Ok(Part {
        offset_bytes,
        len_bytes,
    })
}

fn parse_number(text: &str) -> Result<u64, NameError> {
    let not_a_number = || NameError::NotANumber(text.to_owned());
    let too_large = || NameError::TooLarge(text.to_owned());
    let (digits, shift) = match text.as_bytes().last() {
        Some(b'K' | b'k') => (&text[..text.len() - 1], 10),
        Some(b'M' | b'm') => (&text[..text.len() - 1], 20),
        Some(b'G' | b'g') => (&text[..text.len() - 1], 30),
        _ => (text, 0),
    };
    let (digits, radix) = match digits.strip_prefix("0x").or(digits.strip_prefix("0X")) {
        Some(digits) => (digits, 16),
        None => (digits, 10),
    };
    // from_str_radix would accept a sign.
    if digits.is_empty() || !digits.chars().all(|digit| digit.is_digit(radix)) {
        return Err(not_a_number());
    }
    let number = u64::from_str_radix(digits, radix).map_err(|_| too_large())?;
    number.checked_mul(1 << shift).ok_or_else(too_large)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn part(offset_bytes: u64, len_bytes: u64) -> Part {
        Part {
            offset_bytes,
            len_bytes,
        }
    }

    fn device(device: Device<'_>, part: Option<Part>) -> AreaName<'_> {
        AreaName {
            place: Place::Device { device, part },
            is_sync: false,
        }
    }

    #[test]
    fn every_form_is_understood() {
        let memory = |name| match AreaName::parse(name).unwrap() {
            AreaName {
                place: Place::Memory(part),
                is_sync,
            } => (part, is_sync),
            other => panic!("{other:?}"),
        };
        let area = part(0x3000_0000, 64 << 20);
        for name in [
            "/dev/mem@0x30000000+64M",
            "/dev/mem@768M+0x4000000",
            "/dev/mem@805306368+65536K",
            "/dev/mem@0x300M+64m",
        ] {
            assert_eq!(memory(name), (area, false), "{name}");
        }
        assert_eq!(memory("/dev/mem@0x30000000+64M,sync"), (area, true));
        assert_eq!(
            memory("/dev/mem@0xfffffffffffff000+4K").0,
            part(u64::MAX - 4095, 4096)
        );
        let uio = Device::Uio {
            name: "uio12",
            map: 3,
        };
        let pci = "/sys/bus/pci/devices/0000:00:04.0/resource2_wc";
        for (name, parsed) in [
            ("/dev/uio12:map3", device(uio, None)),
            (
                "/dev/uio12:map3@4K+1M",
                device(uio, Some(part(4096, 1 << 20))),
            ),
            (
                "/dev/udmabuf0",
                device(Device::UDmaBuf { name: "udmabuf0" }, None),
            ),
            (
                "/dev/u-dma-buf0@0+1G",
                device(
                    Device::UDmaBuf { name: "u-dma-buf0" },
                    Some(part(0, 1 << 30)),
                ),
            ),
            (
                "/dev/camera-frames",
                device(
                    Device::UDmaBuf {
                        name: "camera-frames",
                    },
                    None,
                ),
            ),
            (pci, device(Device::PciBar { path: pci, bar: 2 }, None)),
        ] {
            assert_eq!(AreaName::parse(name), Ok(parsed), "{name}");
        }
    }

    #[test]
    fn what_is_wrong_with_a_name_is_said() {
        let text = |text: &str| text.to_owned();
        for (name, error) in [
            ("", NameError::UnknownForm),
            ("/dev/", NameError::UnknownForm),
            ("/dev/..", NameError::UnknownForm),
            ("/dev/dma_heap/system", NameError::UnknownForm),
            ("linux,cma", NameError::UnknownOption(text("cma"))),
            (
                "/dev/udmabuf0,dsync",
                NameError::UnknownOption(text("dsync")),
            ),
            (
                "/dev/udmabuf0,sync,sync",
                NameError::UnknownOption(text("sync,sync")),
            ),
            ("/dev/mem", NameError::NoAddress),
            (
                "/dev/mem@0x30000000",
                NameError::NoLength(text("0x30000000")),
            ),
            ("/dev/mem@0+4K", NameError::AddressZero),
            ("/dev/mem@0x1000+0", NameError::NoBytes),
            ("/dev/mem@-1+4K", NameError::NotANumber(text("-1"))),
            ("/dev/mem@0x+4K", NameError::NotANumber(text("0x"))),
            ("/dev/mem@0x1000++4K", NameError::NotANumber(text("+4K"))),
            ("/dev/mem@0x1000+4KB", NameError::NotANumber(text("4KB"))),
            (
                "/dev/mem@0x1000+4\u{b5}",
                NameError::NotANumber(text("4\u{b5}")),
            ),
            ("/dev/mem@0x1000+", NameError::NotANumber(text(""))),
            (
                "/dev/mem@0x1000+17179869184G",
                NameError::TooLarge(text("17179869184G")),
            ),
            (
                "/dev/mem@0xffffffffffffffff+2",
                NameError::Wraps {
                    offset_bytes: u64::MAX,
                    len_bytes: 2,
                },
            ),
            ("/dev/uio0", NameError::NoMap),
            ("/dev/uio0:map", NameError::NoMap),
            ("/dev/uio0:map+1", NameError::NoMap),
            ("/dev/udmabuf", NameError::KernelUdmabuf),
            ("/dev/udmabuf@0+4K", NameError::KernelUdmabuf),
            ("/dev/x:map0", NameError::UnknownForm),
            (
                "/sys/bus/pci/devices/0000:00:04.0/resource6",
                NameError::NoBar,
            ),
            (
                "/sys/bus/pci/devices/0000:00:04.0/resource",
                NameError::NoBar,
            ),
            (
                "/sys/bus/pci/devices/0000:00:04.0/config",
                NameError::UnknownForm,
            ),
        ] {
            assert_eq!(AreaName::parse(name), Err(error), "{name}");
        }
    }

    proptest! {
        #[test]
        fn no_text_is_understood_as_a_range_that_wraps(text in "\\PC{0,40}") {
            let _ = AreaName::parse(&text);
            let name = format!("/dev/mem@{text}");
            if let Ok(AreaName { place: Place::Memory(part), .. }) = AreaName::parse(&name) {
                prop_assert!(part.len_bytes > 0 && part.offset_bytes > 0);
                prop_assert!(part.offset_bytes.checked_add(part.len_bytes - 1).is_some());
            }
        }

        #[test]
        fn numbers_are_read_as_they_were_written(
            offset_bytes in 1u64.., len_bytes in 1u64.., hex in any::<bool>(), sync in any::<bool>(),
        ) {
            let end = if sync { ",sync" } else { "" };
            let name = match hex {
                true => format!("/dev/mem@{offset_bytes:#x}+{len_bytes:#x}{end}"),
                false => format!("/dev/mem@{offset_bytes}+{len_bytes}{end}"),
            };
            let expected = match offset_bytes.checked_add(len_bytes - 1) {
                Some(_) => Ok(AreaName {
                    place: Place::Memory(part(offset_bytes, len_bytes)),
                    is_sync: sync,
                }),
                None => Err(NameError::Wraps { offset_bytes, len_bytes }),
            };
            prop_assert_eq!(AreaName::parse(&name), expected);
        }
    }
}
