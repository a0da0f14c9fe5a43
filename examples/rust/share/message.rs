// SPDX-License-Identifier: MPL-2.0
//! What the two processes of the example say to one another.

/// Each message is one packet, which arrives whole or not at all.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Message {
    /// To the consumer, once for each buffer, together with the file descriptor.
    Buffer { id: u32, size_bytes: u64 },
    /// To the consumer: it may read this buffer now.
    Frame { id: u32, sequence: u64 },
    /// To the producer: the consumer no longer uses this buffer.
    Release { id: u32 },
}

pub const MESSAGE_BYTES: usize = 16;

impl Message {
    pub fn to_bytes(self) -> [u8; MESSAGE_BYTES] {
        let (tag, id, number) = match self {
            Self::Buffer { id, size_bytes } => (1u32, id, size_bytes),
            Self::Frame { id, sequence } => (2, id, sequence),
            Self::Release { id } => (3, id, 0),
        };
        let mut bytes = [0; MESSAGE_BYTES];
        bytes[..4].copy_from_slice(&tag.to_le_bytes());
        bytes[4..8].copy_from_slice(&id.to_le_bytes());
        bytes[8..].copy_from_slice(&number.to_le_bytes());
        bytes
    }

    pub fn from_bytes(bytes: [u8; MESSAGE_BYTES]) -> Option<Self> {
        let (words, number) = bytes.split_at(8);
        let (tag, id) = words.split_at(4);
        let number = u64::from_le_bytes(number.try_into().ok()?);
        let id = u32::from_le_bytes(id.try_into().ok()?);
        match u32::from_le_bytes(tag.try_into().ok()?) {
            1 => Some(Self::Buffer {
                id,
                size_bytes: number,
            }),
            2 => Some(Self::Frame {
                id,
                sequence: number,
            }),
            3 => Some(Self::Release { id }),
            _ => None,
        }
    }
}
