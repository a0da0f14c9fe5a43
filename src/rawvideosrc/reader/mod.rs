// SPDX-License-Identifier: MPL-2.0
//! Where frames come from: files in several ways, or a drawn pattern, all
//! behind [`FrameSource`]. Plain structs that know no element.

pub mod open;
mod read;

use crate::layout::{FrameLayout, MAX_PLANES, Transfer};
pub use read::FileReader;
use std::io;

/// The mapped buffer that a frame is written to.
pub struct Target<'a> {
    parts: [&'a mut [u8]; MAX_PLANES],
    apart: bool,
    layout: FrameLayout,
}

impl<'a> Target<'a> {
    /// A buffer mapped as one run of bytes, with its planes at `layout`'s offsets.
    /// None if a plane ends past the bytes.
    pub fn whole(bytes: &'a mut [u8], layout: FrameLayout) -> Option<Self> {
        for plane in layout.planes() {
            if plane.end_bytes()? > bytes.len() {
                return None;
            }
        }
        Some(Self {
            parts: [bytes, &mut [], &mut [], &mut []],
            apart: false,
            layout,
        })
    }

    /// A buffer whose planes are mapped each on its own; offsets of `layout`
    /// are not used.
    pub fn planes(planes: [&'a mut [u8]; MAX_PLANES], mut layout: FrameLayout) -> Option<Self> {
        let n_planes = layout.n_planes;
        for (plane, bytes) in layout.planes[..n_planes].iter_mut().zip(&planes) {
            plane.offset_bytes = 0;
            if plane.end_bytes()? > bytes.len() {
                return None;
            }
        }
        Some(Self {
            parts: planes,
            apart: true,
            layout,
        })
    }

    /// Where the planes are.
    pub fn layout(&self) -> &FrameLayout {
        &self.layout
    }

    /// Whether each plane has a mapping of its own.
    pub fn is_apart(&self) -> bool {
        self.apart
    }

    /// The mappings, by [`crate::layout::Run::part`].
    pub fn parts_mut(&mut self) -> &mut [&'a mut [u8]; MAX_PLANES] {
        &mut self.parts
    }

    /// One row of a plane, picture bytes only.
    pub fn row_mut(&mut self, plane: usize, row: usize) -> &mut [u8] {
        let Self {
            parts,
            apart,
            layout,
        } = self;
        let place = layout.planes[plane];
        let start = place.offset_bytes + row * place.stride_bytes;
        &mut parts[if *apart { plane } else { 0 }][start..start + place.row_bytes]
    }
}

/// A planned transfer that is made anew only when a buffer is laid out otherwise.
#[derive(Debug)]
pub struct Route {
    source: FrameLayout,
    target: FrameLayout,
    apart: bool,
    pixel_bytes: Option<usize>,
    transfer: Transfer,
}

impl Route {
    /// From frames laid out as `source` to buffers of `info`'s format.
    pub fn new(source: FrameLayout, info: &gst_video::VideoInfo) -> Self {
        let format = info.format_info();
        // Only formats that a screen can scan out have padding that may be seen.
        let pixel_bytes = (format.n_planes() == 1 && !format.is_complex())
            .then(|| usize::try_from(info.comp_pstride(0)).unwrap_or(0));
        Self {
            source,
            target: FrameLayout::default(),
            apart: false,
            pixel_bytes,
            transfer: Transfer::default(),
        }
    }

    /// The layout that frames come in.
    pub fn source(&self) -> &FrameLayout {
        &self.source
    }

    /// The runs that fill a buffer laid out as `target`.
    pub fn to(&mut self, target: &FrameLayout, apart: bool) -> &Transfer {
        if self.target != *target || self.apart != apart {
            let padding_is_free = self.pixel_bytes.is_none_or(|pixel_bytes| {
                let plane = target.planes[0];
                plane.stride_bytes - plane.row_bytes < pixel_bytes
            });
            self.transfer = Transfer::new(&self.source, target, apart, padding_is_free);
            self.target = *target;
            self.apart = apart;
        }
        &self.transfer
    }
}

/// What a source gives for a frame that was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The frame is in the buffer.
    Frame,
    /// There is no such frame: the source ends before it.
    End,
}

/// What goes wrong while frames are read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The kernel's answer.
    #[error("reading frame {frame} at byte {offset_bytes}: {source}")]
    Io {
        /// Number of the frame in the file.
        frame: u64,
        /// Where it starts.
        offset_bytes: u64,
        /// errno.
        source: io::Error,
    },
    /// The format has no drawing functions.
    #[error("drawing the pattern: {0}")]
    Draw(String),
}

/// Frames by number.
pub trait FrameSource: Send {
    /// Writes frame `n` into `target`, each byte of the picture once and
    /// without reading any back.
    fn read(&mut self, n: u64, target: &mut Target<'_>) -> Result<Outcome, ReadError>;
}
