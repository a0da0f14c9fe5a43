// SPDX-License-Identifier: MPL-2.0
//! Framebuffers with deferred I/O (drivers/video/fbdev/core/fb_defio.c): their memory is not what the
//! display shows. The driver notices which pages of it are written, by write-protecting them, and sends
//! these to the display some time later. So do drivers of displays on SPI, I2C and USB (fbtft, ssd1307fb,
//! udlfb), and DRM's emulation of a framebuffer where it has a shadow buffer. What does not change
//! is better not written. Pure.
use std::io;

/// How often a page must turn out to be write-protected again. An unrelated fault may be counted once.
const ROUNDS: u32 = 2;

/// Whether a framebuffer has deferred I/O, which no system call tells. `touch` writes to a page of it, `flush`
/// has the driver send what was written, and `faults` counts the page faults of this thread: only
/// with deferred I/O, the first write after each flush is a fault.
pub fn is_deferred(
    touch: impl Fn(),
    flush: impl Fn() -> io::Result<()>,
    faults: impl Fn() -> u64,
) -> bool {
    touch();
    (0..ROUNDS).all(|_| {
        if flush().is_err() {
            return false;
        }
        let before = faults();
        touch();
        faults() > before
    })
}

/// A copy of the picture that the driver was last given.
#[derive(Debug, Default)]
pub struct Shadow {
    bytes: Vec<u8>,
    row_bytes: usize,
}

/// How many bytes of a frame were written, and how many were not, because they were there already.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Difference {
    pub written_bytes: u64,
    pub unchanged_bytes: u64,
}

impl Shadow {
    /// Has the next frame written whole, because the screen may show something else.
    pub fn forget(&mut self) {
        self.bytes.clear();
    }

    /// Calls `write` with the number and the bytes of each row that differs from the picture before. All rows
    /// have `row_bytes`. A frame of another size than the one before is written whole.
    pub fn update<'a>(
        &mut self,
        rows: impl ExactSizeIterator<Item = &'a [u8]>,
        row_bytes: usize,
        mut write: impl FnMut(usize, &[u8]),
    ) -> Difference {
        let size_bytes = rows.len() * row_bytes;
        let is_known = (self.bytes.len(), self.row_bytes) == (size_bytes, row_bytes);
        self.bytes.resize(size_bytes, 0);
        self.row_bytes = row_bytes;
        let mut difference = Difference::default();
        let shadow = self.bytes.chunks_exact_mut(row_bytes.max(1));
        for (number, (row, shadow)) in rows.zip(shadow).enumerate() {
            if is_known && row == shadow {
                difference.unchanged_bytes += row_bytes as u64;
                continue;
            }
            shadow.copy_from_slice(row);
            write(number, shadow);
            difference.written_bytes += row_bytes as u64;
        }
        difference
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::cell::Cell;

    /// A page that is write-protected by `flush`, if the driver has deferred I/O.
    struct Page {
        has_deferred_io: bool,
        is_protected: Cell<bool>,
        faults: Cell<u64>,
    }

    fn finds(has_deferred_io: bool, flush: impl Fn() -> io::Result<()>) -> bool {
        let page = Page {
            has_deferred_io,
            is_protected: Cell::new(true), // not mapped before the first write
            faults: Cell::new(7),
        };
        let touch = || {
            let faults = u64::from(page.is_protected.replace(false));
            page.faults.set(page.faults.get() + faults);
        };
        let flush = || {
            page.is_protected.set(page.has_deferred_io);
            flush()
        };
        is_deferred(touch, flush, || page.faults.get())
    }

    #[test]
    fn writes_that_fault_after_each_flush_are_noticed_by_the_driver() {
        assert!(finds(true, || Ok(())));
        assert!(!finds(false, || Ok(())));
    }

    #[test]
    fn a_kernel_without_deferred_io_has_no_such_framebuffer() {
        assert!(!finds(true, || Err(io::Error::from_raw_os_error(
            libc::EINVAL
        ))));
    }

    fn update(shadow: &mut Shadow, picture: &[u8], row_bytes: usize) -> (Vec<usize>, Difference) {
        let mut written = Vec::new();
        let rows = picture.chunks_exact(row_bytes);
        let difference = shadow.update(rows, row_bytes, |row, bytes| {
            assert_eq!(bytes, &picture[row * row_bytes..][..row_bytes]);
            written.push(row);
        });
        (written, difference)
    }

    #[test]
    fn only_rows_that_changed_are_written() {
        let mut shadow = Shadow::default();
        let mut picture = vec![1; 12];
        assert_eq!(update(&mut shadow, &picture, 4).0, [0, 1, 2]);
        assert_eq!(update(&mut shadow, &picture, 4).0, [0; 0]);
        picture[7] = 2;
        let (rows, difference) = update(&mut shadow, &picture, 4);
        assert_eq!(rows, [1]);
        let counted = (difference.written_bytes, difference.unchanged_bytes);
        assert_eq!(counted, (4, 8));
    }

    #[test]
    fn what_is_forgotten_or_of_another_size_is_written_whole() {
        let mut shadow = Shadow::default();
        let picture = [0; 12];
        assert_eq!(update(&mut shadow, &picture, 4).0, [0, 1, 2]);
        shadow.forget();
        assert_eq!(update(&mut shadow, &picture, 4).0, [0, 1, 2]);
        assert_eq!(update(&mut shadow, &picture, 6).0, [0, 1]);
        assert_eq!(update(&mut shadow, &picture[..6], 6).0, [0]);
    }

    proptest! {
        #[test]
        fn the_screen_always_shows_the_last_picture(
            pictures in proptest::collection::vec(proptest::collection::vec(0u8..2, 12), 1..8)
        ) {
            let mut shadow = Shadow::default();
            let mut screen = vec![9; 12];
            for picture in pictures {
                let rows = picture.chunks_exact(3);
                shadow.update(rows, 3, |row, bytes| {
                    screen[row * 3..][..3].copy_from_slice(bytes);
                });
                prop_assert_eq!(&screen, &picture);
            }
        }
    }
}
