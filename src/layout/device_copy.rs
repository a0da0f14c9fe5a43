// SPDX-License-Identifier: MPL-2.0
//! Copies rows of pixels into memory that only devices read.

/// Copies `from` over `to`, which has the same length, past the CPU's caches where the architecture has
/// non-temporal stores. An ordinary store first reads the cache line that it changes, and puts
/// a line into the cache that no program reads again. `finish` must follow the last row.
///
/// # Panics
/// The lengths differ.
pub(super) fn copy_row(from: &[u8], to: &mut [u8]) {
    assert_eq!(from.len(), to.len(), "bytes of a row");
    #[cfg(target_arch = "x86_64")]
    sse2::copy(from, to);
    #[cfg(not(target_arch = "x86_64"))]
    to.copy_from_slice(from);
}

/// Makes the rows visible before anything that this thread stores later. Other stores of x86 are in order,
/// but non-temporal ones are not.
pub(super) fn finish() {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: every x86_64 processor has the instruction, and it needs nothing else.
    unsafe {
        std::arch::x86_64::_mm_sfence();
    }
}

#[cfg(target_arch = "x86_64")]
mod sse2 {
    use std::arch::x86_64::{__m128i, _mm_loadu_si128, _mm_stream_si128};

    pub fn copy(from: &[u8], to: &mut [u8]) {
        // SAFETY: any sixteen bytes are an `__m128i`.
        let (head, lines, tail) = unsafe { to.align_to_mut::<__m128i>() };
        let (head_bytes, lines_bytes) = (head.len(), size_of_val(lines));
        let (from_head, rest) = from.split_at(head_bytes);
        let (from_lines, from_tail) = rest.split_at(lines_bytes);
        head.copy_from_slice(from_head);
        for (from, to) in from_lines.chunks_exact(size_of::<__m128i>()).zip(lines) {
            // SAFETY: the load may be unaligned and reads the sixteen bytes of the chunk; the store
            // writes one `__m128i`, which is aligned. Every x86_64 processor has SSE2.
            unsafe { _mm_stream_si128(to, _mm_loadu_si128(from.as_ptr().cast())) };
        }
        tail.copy_from_slice(from_tail);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        #[test]
        fn a_row_arrives_whole_at_any_place(len in 0usize..200, from in 0usize..17, to in 0usize..17) {
            let source: Vec<u8> = (0..240).map(|i| i as u8 ^ 0x5a).collect();
            let mut target = vec![0xEE; 240];
            copy_row(&source[from..from + len], &mut target[to..to + len]);
            finish();
            let mut expected = vec![0xEE; 240];
            expected[to..to + len].copy_from_slice(&source[from..from + len]);
            proptest::prop_assert_eq!(target, expected);
        }
    }
}
