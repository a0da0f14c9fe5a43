// SPDX-License-Identifier: MPL-2.0
#![no_main]

#[path = "../../examples/rust/share/message.rs"]
mod message;

use message::{MESSAGE_BYTES, Message};

// Packets of the example share.
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    for packet in bytes.as_chunks::<MESSAGE_BYTES>().0 {
        if let Some(message) = Message::from_bytes(*packet) {
            assert_eq!(Message::from_bytes(message.to_bytes()), Some(message));
            let (tag, id) = (packet[0], message.to_bytes());
            assert!((1..=3).contains(&tag) && id[4..8] == packet[4..8]);
        }
    }
});
