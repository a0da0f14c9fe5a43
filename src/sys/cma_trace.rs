// SPDX-License-Identifier: MPL-2.0
//! The blocks that the contiguous memory allocator gave the calling thread, from its tracepoint.
//!
//! The perf event on the tracepoint is opened for the calling thread alone. It changes nothing that others
//! trace, and tracing need not be enabled. The offsets of the fields differ between kernels, so they come
//! from the event's `format` file.

use std::fmt;
use std::fs;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use super::mmap::{Mapping, page_size_bytes};

const TRACEFS: [&str; 2] = ["/sys/kernel/tracing", "/sys/kernel/debug/tracing"];
/// The event is `cma_alloc` until 5.12, `cma_alloc_finish` since.
const EVENTS: [&str; 2] = ["cma_alloc_finish", "cma_alloc"];

/// struct perf_event_attr, PERF_ATTR_SIZE_VER0
#[repr(C)]
#[derive(Default)]
struct PerfEventAttr {
    type_: u32,
    size: u32,
    config: u64,
    sample_period: u64,
    sample_type: u64,
    read_format: u64,
    flags: u64,
    wakeup_events: u32,
    bp_type: u32,
    config1: u64,
}
const _: () = assert!(size_of::<PerfEventAttr>() == 64);

const PERF_TYPE_TRACEPOINT: u32 = 2;
const PERF_SAMPLE_RAW: u64 = 1 << 10;
const ATTR_DISABLED: u64 = 1 << 0;
const PERF_FLAG_FD_CLOEXEC: libc::c_ulong = 1 << 3;
const PERF_RECORD_LOST: u32 = 2;
const PERF_RECORD_SAMPLE: u32 = 9;
/// Offset of `data_head` in struct perf_event_mmap_page, whose comment says "at 1k".
const DATA_HEAD: usize = 1024;
/// Room for dozens of records, where one is expected.
const DATA_PAGES: usize = 2;

mod raw {
    nix::ioctl_none!(perf_event_ioc_enable, b'$', 0);
    nix::ioctl_none!(perf_event_ioc_disable, b'$', 1);
}

/// A contiguous block that the allocator gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allocation {
    /// Page frame number of the first page.
    pub pfn: u64,
    /// Number of pages.
    pub count: u64,
}

/// Records this thread's allocations between [`CmaTrace::begin`] and [`CmaTrace::end`].
#[derive(Debug)]
pub struct CmaTrace {
    event: OwnedFd,
    ring: Mapping,
    format: Format,
}

/// Why there is no trace.
#[derive(Debug)]
pub struct Unavailable {
    pub object: Object,
    pub source: io::Error,
}

/// The object that refused a trace.
#[derive(Debug)]
pub enum Object {
    /// A file or directory of tracefs.
    Path(PathBuf),
    /// A system call, by name.
    Call(&'static str),
}

impl fmt::Display for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path(path) => path.display().fmt(f),
            Self::Call(name) => f.write_str(name),
        }
    }
}

impl CmaTrace {
    pub fn begin() -> Result<Self, Unavailable> {
        let directory = event_directory()?;
        let read = |name: &str| {
            let path = directory.join(name);
            fs::read_to_string(&path).map_err(|source| Unavailable {
                object: Object::Path(path),
                source,
            })
        };
        let broken = |name: &str| Unavailable {
            object: Object::Path(directory.join(name)),
            source: io::Error::from(io::ErrorKind::InvalidData),
        };
        let id = read("id")?.trim().parse().map_err(|_| broken("id"))?;
        let format = Format::parse(&read("format")?).ok_or_else(|| broken("format"))?;
        let perf = |name| {
            move |source| Unavailable {
                object: Object::Call(name),
                source,
            }
        };
        let event = open_event(id).map_err(perf("perf_event_open"))?;
        let ring = Mapping::shared(&event, (1 + DATA_PAGES) * page_size_bytes())
            .map_err(perf("mmap of a perf event"))?;
        // SAFETY: the ioctl takes no memory; the fd is open.
        unsafe { raw::perf_event_ioc_enable(event.as_raw_fd()) }
            .map_err(io::Error::from)
            .map_err(perf("PERF_EVENT_IOC_ENABLE"))?;
        Ok(Self {
            event,
            ring,
            format,
        })
    }

    /// Stops recording. Returns the successful allocations. `None` if records are lost or unreadable.
    pub fn end(self) -> Option<Vec<Allocation>> {
        // SAFETY: as in `begin`. If it fails, later records could be seen too, but the thread makes no
        // allocation before the ring is read.
        let _ = unsafe { raw::perf_event_ioc_disable(self.event.as_raw_fd()) };
        let base = self.ring.ptr().as_ptr();
        // SAFETY: the first page of the ring is a struct perf_event_mmap_page; the kernel writes its u64
        // data_head, which is aligned, atomically.
        let head = unsafe { AtomicU64::from_ptr(base.add(DATA_HEAD).cast()) };
        let head = usize::try_from(head.load(Ordering::Acquire)).ok()?;
        let data_bytes = DATA_PAGES * page_size_bytes();
        // data_tail is never moved, so a full ring drops new records and overwrites none.
        let mut data = vec![0u8; head.min(data_bytes)];
        for (offset, byte) in data.iter_mut().enumerate() {
            // SAFETY: offset is below DATA_PAGES pages, which follow the first one.
            *byte = unsafe { base.add(page_size_bytes() + offset).read_volatile() };
        }
        self.format.allocations(&data)
    }
}

/// The directory of the event, or why it cannot be reached.
fn event_directory() -> Result<PathBuf, Unavailable> {
    let mut denied = None;
    for tracefs in TRACEFS {
        for event in EVENTS {
            let directory = Path::new(tracefs).join("events/cma").join(event);
            match fs::metadata(&directory) {
                Ok(_) => return Ok(directory),
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                    denied.get_or_insert_with(|| Unavailable {
                        object: Object::Path(deepest_visible(&directory)),
                        source: error,
                    });
                }
                Err(_) => {}
            }
        }
    }
    Err(denied.unwrap_or_else(|| Unavailable {
        object: Object::Path(Path::new(TRACEFS[0]).join("events/cma")),
        source: io::Error::from_raw_os_error(libc::ENOENT),
    }))
}

/// The directory on the way to `path` that denies access: the last one that can be seen.
fn deepest_visible(path: &Path) -> PathBuf {
    path.ancestors()
        .find(|directory| fs::metadata(directory).is_ok())
        .unwrap_or(path)
        .to_owned()
}

/// Opens a disabled event on a tracepoint, for the calling thread on any CPU.
fn open_event(id: u64) -> io::Result<OwnedFd> {
    let attr = PerfEventAttr {
        type_: PERF_TYPE_TRACEPOINT,
        size: size_of::<PerfEventAttr>() as u32,
        config: id,
        sample_period: 1,
        sample_type: PERF_SAMPLE_RAW,
        flags: ATTR_DISABLED,
        ..Default::default()
    };
    loop {
        // SAFETY: `attr` is a valid struct perf_event_attr of the size it states; pid 0, cpu -1 and group
        // -1 are plain numbers.
        let fd = unsafe {
            libc::syscall(
                libc::SYS_perf_event_open,
                &raw const attr,
                0 as libc::pid_t,
                -1 as libc::c_int,
                -1 as libc::c_int,
                PERF_FLAG_FD_CLOEXEC,
            )
        };
        if fd >= 0 {
            // SAFETY: the kernel has just made this fd; no other code owns it.
            return Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) });
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

/// The place of a field in a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Field {
    offset: usize,
    size: usize,
}

impl Field {
    /// The field's value in a record's raw data, as an unsigned number.
    fn read(self, raw: &[u8]) -> Option<u64> {
        let bytes = raw.get(self.offset..self.offset.checked_add(self.size)?)?;
        match self.size {
            4 => Some(u64::from(u32::from_ne_bytes(bytes.try_into().ok()?))),
            8 => Some(u64::from_ne_bytes(bytes.try_into().ok()?)),
            _ => None,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Format {
    pfn: Field,
    count: Field,
    /// Missing on older kernels, which report a failure by pfn -1 and page 0.
    errorno: Option<Field>,
    page: Option<Field>,
}

impl Format {
    pub fn parse(format: &str) -> Option<Self> {
        let field = |name: &str| format.lines().find_map(|line| parse_field(line, name));
        Some(Self {
            pfn: field("pfn")?,
            count: field("count")?,
            errorno: field("errorno"),
            page: field("page"),
        })
    }

    /// The successful allocations among the records of a perf ring. `None` if records were lost or cut off.
    pub fn allocations(&self, mut data: &[u8]) -> Option<Vec<Allocation>> {
        let mut found = Vec::new();
        while data.len() >= 8 {
            let kind = u32::from_ne_bytes(data[..4].try_into().ok()?);
            let size = usize::from(u16::from_ne_bytes(data[6..8].try_into().ok()?));
            let record = data.get(8..size)?;
            match kind {
                PERF_RECORD_LOST => return None,
                PERF_RECORD_SAMPLE => {
                    // The sample is a u32 size, then the tracepoint's own record.
                    found.extend(self.allocation(record.get(4..)?)?);
                }
                _ => {}
            }
            data = &data[size..];
        }
        Some(found)
    }

    /// `Some(None)` for a failed allocation.
    fn allocation(&self, raw: &[u8]) -> Option<Option<Allocation>> {
        let is_zero = |field: Option<Field>| field.and_then(|field| field.read(raw)) == Some(0);
        let failed = match self.errorno {
            Some(_) => !is_zero(self.errorno),
            None => is_zero(self.page),
        };
        let allocation = Allocation {
            pfn: self.pfn.read(raw)?,
            count: self.count.read(raw)?,
        };
        Some((!failed && allocation.pfn != 0).then_some(allocation))
    }
}

/// Parses a line like "field:unsigned long pfn; offset:16; size:8; signed:0;".
fn parse_field(line: &str, name: &str) -> Option<Field> {
    let mut parts = line.trim().split(';').map(str::trim);
    let declaration = parts.next()?.strip_prefix("field:")?;
    if declaration.rsplit([' ', '*']).next()? != name {
        return None;
    }
    Some(Field {
        offset: parts.next()?.strip_prefix("offset:")?.parse().ok()?,
        size: parts.next()?.strip_prefix("size:")?.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The format file of 6.12.
    const FORMAT: &str = "\
name: cma_alloc_finish
ID: 460
format:
\tfield:unsigned short common_type;\toffset:0;\tsize:2;\tsigned:0;
\tfield:unsigned char common_flags;\toffset:2;\tsize:1;\tsigned:0;
\tfield:unsigned char common_preempt_count;\toffset:3;\tsize:1;\tsigned:0;
\tfield:int common_pid;\toffset:4;\tsize:4;\tsigned:1;

\tfield:__data_loc char[] name;\toffset:8;\tsize:4;\tsigned:0;
\tfield:unsigned long pfn;\toffset:16;\tsize:8;\tsigned:0;
\tfield:const struct page * page;\toffset:24;\tsize:8;\tsigned:0;
\tfield:unsigned long count;\toffset:32;\tsize:8;\tsigned:0;
\tfield:unsigned int align;\toffset:40;\tsize:4;\tsigned:0;
\tfield:int errorno;\toffset:44;\tsize:4;\tsigned:1;

print fmt: \"name=%s pfn=0x%lx page=%p count=%lu align=%u errorno=%d\", __get_str(name), REC->pfn
";

    /// A record of that format.
    fn sample(pfn: u64, count: u64, errorno: i32) -> Vec<u8> {
        let mut raw = vec![0u8; 56];
        raw[16..24].copy_from_slice(&pfn.to_ne_bytes());
        raw[24..32].copy_from_slice(&1u64.to_ne_bytes());
        raw[32..40].copy_from_slice(&count.to_ne_bytes());
        raw[44..48].copy_from_slice(&errorno.to_ne_bytes());
        let mut payload = (raw.len() as u32).to_ne_bytes().to_vec();
        payload.extend(raw);
        record(PERF_RECORD_SAMPLE, &payload)
    }

    fn record(kind: u32, payload: &[u8]) -> Vec<u8> {
        let mut record = kind.to_ne_bytes().to_vec();
        record.extend(0u16.to_ne_bytes());
        record.extend((8 + payload.len() as u16).to_ne_bytes());
        record.extend(payload);
        record
    }

    #[test]
    fn fields_are_where_the_format_says() {
        let format = Format::parse(FORMAT).unwrap();
        assert_eq!(
            format.pfn,
            Field {
                offset: 16,
                size: 8
            }
        );
        assert_eq!(
            format.count,
            Field {
                offset: 32,
                size: 8
            }
        );
        assert_eq!(
            format.errorno,
            Some(Field {
                offset: 44,
                size: 4
            })
        );
        assert_eq!(
            format.page,
            Some(Field {
                offset: 24,
                size: 8
            })
        );
        assert_eq!(Format::parse(&FORMAT.replace("pfn", "frame")), None);
    }

    #[test]
    fn failed_allocations_are_left_out() {
        let format = Format::parse(FORMAT).unwrap();
        let data = [sample(u64::MAX, 2048, -12), sample(0x1234, 2048, 0)].concat();
        assert_eq!(
            format.allocations(&data),
            Some(vec![Allocation {
                pfn: 0x1234,
                count: 2048
            }])
        );
    }

    #[test]
    fn without_errorno_a_null_page_is_a_failure() {
        let older = FORMAT.replace("errorno", "something");
        let format = Format::parse(&older).unwrap();
        let mut failed = sample(u64::MAX, 4, 0);
        failed[12 + 24..12 + 32].fill(0);
        assert_eq!(format.allocations(&failed), Some(vec![]));
        assert_eq!(format.allocations(&sample(7, 4, 0)).unwrap().len(), 1);
    }

    #[test]
    fn lost_or_cut_records_are_no_answer() {
        let format = Format::parse(FORMAT).unwrap();
        let lost = record(PERF_RECORD_LOST, &[0; 16]);
        assert_eq!(format.allocations(&[sample(7, 4, 0), lost].concat()), None);
        let mut cut = sample(7, 4, 0);
        cut.truncate(40);
        assert_eq!(format.allocations(&cut), None);
        assert_eq!(format.allocations(&record(3, &[])), Some(vec![]));
        assert_eq!(format.allocations(&record(3, &[])[..7]), Some(vec![]));
        let mut endless = record(3, &[]);
        endless[6..8].fill(0);
        assert_eq!(format.allocations(&endless), None);
    }
}
