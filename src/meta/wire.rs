// SPDX-License-Identifier: MPL-2.0
//! The meta as bytes, for a buffer that goes to another process. Pure.
//!
//! The other process has the memory through a descriptor of its own, so that only the file
//! identifies it. All integers are little-endian:
//!
//! | bytes | what |
//! |---|---|
//! | 4 | id |
//! | 4 | flags: `PINNED`, `EXTERNAL` |
//! | 4 | kind |
//! | 4 | source of the address, or `NO_ADDRESS` |
//! | 8 | size of the buffer |
//! | 8 | offset of the buffer in the memory |
//! | 8, 8 | st_dev and st_ino of the memory's file |
//! | 4 | length of the heap's name, or `NO_HEAP` |
//! | 4 | number of extents, or, without an address, length of the reason |
//! | | the heap's name |
//! | 16 each | extents: physical address, length; or the reason, in words |

use std::ffi::CString;

use super::{
    Facts, ffi,
    other::{kind_of, source_of},
};
use crate::{
    memory::{Address, AddressUnknown, Extent, PhysAddr},
    sys::file_id::FileId,
};

/// Version of the format described above.
#[cfg(feature = "v1_24")]
pub const VERSION: u8 = 0;

const NO_ADDRESS: u32 = u32::MAX;
const NO_HEAP: u32 = u32::MAX;
/// The longest text that is accepted. Reasons and names of this library are far shorter.
const MAX_TEXT_BYTES: u32 = 4096;
const FLAGS: u32 = ffi::GST_PHYS_MEM_FLAG_PINNED | ffi::GST_PHYS_MEM_FLAG_EXTERNAL;

/// Why bytes are refused. No copy of this library writes such bytes.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Malformed(&'static str);

/// Writes `facts` about the memory of `file`.
pub fn write(facts: &Facts, file: FileId) -> Vec<u8> {
    let reason;
    let (source, count, tail) = match &facts.address {
        Ok(address) => {
            let extents = address.extents().iter();
            let bytes = extents.flat_map(|e| [e.phys.0, e.len_bytes].map(u64::to_le_bytes));
            (
                address.source() as u32,
                address.extents().len() as u32,
                bytes.flatten().collect(),
            )
        }
        Err(unknown) => {
            reason = match unknown {
                AddressUnknown::Sender(reason) => reason.clone(),
                unknown => unknown.to_string(),
            };
            (NO_ADDRESS, reason.len() as u32, reason.into_bytes())
        }
    };
    let heap = facts.heap.as_ref().map(|heap| heap.as_bytes());
    let mut flags = 0;
    if facts.is_pinned {
        flags |= ffi::GST_PHYS_MEM_FLAG_PINNED;
    }
    if facts.is_external {
        flags |= ffi::GST_PHYS_MEM_FLAG_EXTERNAL;
    }
    let mut bytes = Vec::new();
    for word in [facts.id, flags, facts.kind as u32, source] {
        bytes.extend(word.to_le_bytes());
    }
    for long in [
        facts.size_bytes as u64,
        facts.memory_offset_bytes as u64,
        file.st_dev,
        file.st_ino,
    ] {
        bytes.extend(long.to_le_bytes());
    }
    for word in [heap.map_or(NO_HEAP, |heap| heap.len() as u32), count] {
        bytes.extend(word.to_le_bytes());
    }
    bytes.extend(heap.unwrap_or_default());
    bytes.extend::<Vec<u8>>(tail);
    bytes
}

/// Reads what [`write()`] wrote. The facts are consistent even if other code wrote the bytes.
pub fn read(bytes: &[u8]) -> Result<(Facts, FileId), Malformed> {
    let mut unread = Unread(bytes);
    let id = unread.word()?;
    let flags = unread.word()?;
    let kind = kind_of(unread.word()? as i32).ok_or(Malformed("unknown kind of memory"))?;
    let source = unread.word()?;
    let size_bytes = unread.size()?;
    let memory_offset_bytes = unread.size()?;
    let file = FileId {
        st_dev: unread.long()?,
        st_ino: unread.long()?,
    };
    let (heap_len, count) = (unread.word()?, unread.word()?);
    if id == 0 || flags & !FLAGS != 0 || size_bytes == 0 {
        return Err(Malformed("no id, no bytes or unknown flags"));
    }
    if memory_offset_bytes.checked_add(size_bytes).is_none() {
        return Err(Malformed("a buffer past the end of all memory"));
    }
    let heap = match heap_len {
        NO_HEAP => None,
        len => Some(unread.text(len)?),
    };
    let heap = heap
        .map(CString::new)
        .transpose()
        .map_err(|_| Malformed("a NUL in the heap's name"))?;
    let address = if source == NO_ADDRESS {
        Err(AddressUnknown::Sender(unread.text(count)?.to_owned()))
    } else {
        let source = source_of(source as i32).ok_or(Malformed("unknown source of the address"))?;
        let extents = (0..count).map(|_| unread.extent());
        let extents = extents.collect::<Result<Vec<_>, _>>()?;
        let total = |sum: u64, extent: &Extent| sum.checked_add(extent.len_bytes);
        if extents.iter().try_fold(0, total) != Some(size_bytes as u64) {
            return Err(Malformed("extents of another size than the buffer"));
        }
        Ok(Address::new(extents, source).ok_or(Malformed("extents past the last address"))?)
    };
    if !unread.0.is_empty() {
        return Err(Malformed("bytes left over"));
    }
    let facts = Facts {
        id,
        size_bytes,
        memory_offset_bytes,
        kind,
        heap,
        is_pinned: flags & ffi::GST_PHYS_MEM_FLAG_PINNED != 0,
        is_external: flags & ffi::GST_PHYS_MEM_FLAG_EXTERNAL != 0,
        address,
    };
    Ok((facts, file))
}

/// The bytes that have not been read yet.
struct Unread<'a>(&'a [u8]);

impl<'a> Unread<'a> {
    fn take(&mut self, len: usize) -> Result<&'a [u8], Malformed> {
        let (taken, unread) = self
            .0
            .split_at_checked(len)
            .ok_or(Malformed("it ends too early"))?;
        self.0 = unread;
        Ok(taken)
    }

    fn word(&mut self) -> Result<u32, Malformed> {
        let mut bytes = [0; 4];
        bytes.copy_from_slice(self.take(4)?);
        Ok(u32::from_le_bytes(bytes))
    }

    fn long(&mut self) -> Result<u64, Malformed> {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(self.take(8)?);
        Ok(u64::from_le_bytes(bytes))
    }

    fn size(&mut self) -> Result<usize, Malformed> {
        usize::try_from(self.long()?).map_err(|_| Malformed("a size beyond this machine"))
    }

    /// Reads a text for people. It goes into logs and, through GLib, into C strings, so that
    /// control characters, NUL among them, are refused.
    fn text(&mut self, len: u32) -> Result<&'a str, Malformed> {
        if len > MAX_TEXT_BYTES {
            return Err(Malformed("a text without end"));
        }
        let text = str::from_utf8(self.take(len as usize)?)
            .map_err(|_| Malformed("words that are not UTF-8"))?;
        match text.contains(char::is_control) {
            true => Err(Malformed("control characters among the words")),
            false => Ok(text),
        }
    }

    fn extent(&mut self) -> Result<Extent, Malformed> {
        Ok(Extent {
            phys: PhysAddr(self.long()?),
            len_bytes: self.long()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::{AddressSource, MemoryKind};
    use proptest::prelude::*;

    fn facts(address: Result<Address, AddressUnknown>, heap: Option<&str>) -> Facts {
        Facts {
            id: 7,
            size_bytes: 0x3000,
            memory_offset_bytes: 64,
            kind: MemoryKind::Cma,
            heap: heap.map(|heap| CString::new(heap).unwrap()),
            is_pinned: true,
            is_external: false,
            address,
        }
    }

    fn known(pieces: &[(u64, u64)]) -> Result<Address, AddressUnknown> {
        let extents = pieces.iter().map(|&(phys, len_bytes)| Extent {
            phys: PhysAddr(phys),
            len_bytes,
        });
        Ok(Address::new(extents.collect(), AddressSource::CmaTrace).unwrap())
    }

    const FILE: FileId = FileId {
        st_dev: 3,
        st_ino: u64::MAX,
    };

    #[test]
    fn what_was_written_is_read() {
        for facts in [
            facts(known(&[(0x8000_0000, 0x3000)]), Some("linux,cma")),
            facts(known(&[(0x9000, 0x1000), (0x1000, 0x2000)]), None),
            facts(Err(AddressUnknown::Sender("a reason".into())), Some("")),
        ] {
            assert_eq!(read(&write(&facts, FILE)), Ok((facts, FILE)));
        }
    }

    #[test]
    fn the_reason_crosses_in_words() {
        let sent = facts(Err(AddressUnknown::PfnMap), None);
        let (received, _) = read(&write(&sent, FILE)).unwrap();
        let reason = AddressUnknown::PfnMap.to_string();
        assert_eq!(received.address, Err(AddressUnknown::Sender(reason)));
    }

    #[test]
    fn every_shortened_or_lengthened_message_is_refused() {
        let mut bytes = write(&facts(known(&[(0x1000, 0x3000)]), Some("reserved")), FILE);
        for len in 0..bytes.len() {
            assert!(read(&bytes[..len]).is_err(), "{len} bytes");
        }
        bytes.push(0);
        assert_eq!(read(&bytes), Err(Malformed("bytes left over")));
    }

    #[test]
    fn extents_that_do_not_cover_the_buffer_are_refused() {
        let mut other = facts(known(&[(0x1000, 0x3000)]), None);
        other.size_bytes += 1;
        let refused = Malformed("extents of another size than the buffer");
        assert_eq!(read(&write(&other, FILE)), Err(refused));
    }

    /// Only a program other than this library sends such texts.
    #[test]
    fn words_that_are_not_for_reading_are_refused() {
        let refused = Err(Malformed("control characters among the words"));
        for text in ["a\0b", "\0", "line\nline", "\x1b[2J", "tab\t"] {
            let reason = facts(Err(AddressUnknown::Sender(text.into())), None);
            assert_eq!(read(&write(&reason, FILE)), refused, "{text:?}");
            let mut bytes = write(&facts(Err(AddressUnknown::NotGiven), Some("heap!")), FILE);
            let at = 56;
            assert_eq!(&bytes[at..at + 5], b"heap!");
            let text = &text.as_bytes()[..text.len().min(5)];
            bytes[at..at + text.len()].copy_from_slice(text);
            assert_eq!(read(&bytes), refused, "{text:?}");
        }
        let endless = facts(Err(AddressUnknown::Sender("x".repeat(4097))), None);
        assert_eq!(
            read(&write(&endless, FILE)),
            Err(Malformed("a text without end"))
        );
    }

    /// A message found by fuzzing: no address, and a reason of one byte, NUL. Only the offset is
    /// changed, because a 32-bit machine would refuse that first.
    #[test]
    fn the_message_that_fuzzing_found_is_refused() {
        let mut bytes = vec![7, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0];
        bytes.extend([0xff; 4]);
        // The fuzzer's size was 4 GiB less a byte, which 32-bit machines refuse earlier.
        bytes.extend([0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0]);
        bytes.extend([0, 0x20, 0, 0, 0xb7, 1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xf7]);
        bytes.extend([
            0x46, 0xff, 0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 0, 0, 0, 0,
        ]);
        assert_eq!(bytes.len(), 57);
        let refused = Malformed("control characters among the words");
        assert_eq!(read(&bytes), Err(refused));
    }

    #[test]
    fn a_buffer_past_the_end_of_all_memory_is_refused() {
        let place = |memory_offset_bytes, size_bytes| {
            let reason = Err(AddressUnknown::Sender("none".into()));
            let facts = Facts {
                memory_offset_bytes,
                size_bytes,
                ..facts(reason, None)
            };
            read(&write(&facts, FILE)).map(|_| ())
        };
        assert_eq!(place(usize::MAX - 4096, 4096), Ok(()));
        let refused = Err(Malformed("a buffer past the end of all memory"));
        assert_eq!(place(usize::MAX - 4095, 4096), refused);
        assert_eq!(place(1, usize::MAX), refused);
    }

    #[test]
    fn a_count_without_bytes_allocates_nothing() {
        let mut bytes = write(&facts(known(&[(0x1000, 0x3000)]), None), FILE);
        let count = bytes.len() - 16 - 4;
        bytes[count..count + 4].fill(0xff);
        assert_eq!(read(&bytes), Err(Malformed("it ends too early")));
    }

    proptest! {
        #[test]
        fn whatever_is_read_is_consistent(
            mut bytes in Just(write(&facts(known(&[(0x9000, 0x1000), (0x1000, 0x2000)]), Some("h")), FILE)),
            changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        ) {
            for (at, byte) in changes {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            if let Ok((facts, file)) = read(&bytes) {
                prop_assert!(facts.id != 0 && facts.kind != MemoryKind::Auto);
                if let Ok(address) = &facts.address {
                    prop_assert_eq!(address.len_bytes(), facts.size_bytes as u64);
                }
                prop_assert_eq!(read(&write(&facts, file)), Ok((facts, file)));
            }
        }

        #[test]
        fn whatever_is_read_can_be_told_in_c_strings(
            tail in proptest::collection::vec(any::<u8>(), 0..40),
            heap_len in prop_oneof![Just(NO_HEAP), 0u32..20],
            count in 0u32..20,
            is_known in any::<bool>(),
        ) {
            let mut bytes = Vec::new();
            let source = if is_known { 0 } else { NO_ADDRESS };
            for word in [7, 0, MemoryKind::Cma as u32, source] {
                bytes.extend(word.to_le_bytes());
            }
            for long in [16u64, 0, 3, 5] {
                bytes.extend(long.to_le_bytes());
            }
            bytes.extend(heap_len.to_le_bytes());
            bytes.extend(count.to_le_bytes());
            bytes.extend(tail);
            if let Ok((facts, _)) = read(&bytes) {
                let text = facts.address.map_or_else(|reason| reason.to_string(), |a| format!("{a:?}"));
                prop_assert!(!text.contains('\0'));
                prop_assert!(CString::new(text).is_ok());
            }
        }
    }
}
