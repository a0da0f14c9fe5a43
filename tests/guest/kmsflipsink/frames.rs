// SPDX-License-Identifier: MPL-2.0
//! Frames to feed a kmsflipsink with, and what vkms then scans out.

use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use gst_allocators::prelude::*;
use gstphysmem::memory::{MemoryKind, Region, Request};

use crate::support::player::{LIMIT, Player};
use crate::support::{Picture, VkmsCrc};

impl Player {
    /// An appsrc that feeds a sink with these properties, frames as they come.
    pub fn fed(sink: &str) -> Self {
        Self::new(&format!(
            "appsrc name=src format=time is-live=false ! kmsflipsink name=sink sync=false {sink}"
        ))
    }

    /// Waits for frames of 640x480, in the mode of that size.
    #[track_caller]
    pub fn playing(sink: &str) -> Self {
        let player = Self::fed(&format!("mode=640x480 {sink}"));
        player.set_caps(&bgrx(640, 480));
        player.start();
        player
    }
}

pub fn info(format: gst_video::VideoFormat, width: u32, height: u32) -> gst_video::VideoInfo {
    gst_video::VideoInfo::builder(format, width, height)
        .fps(gst::Fraction::new(60, 1))
        .build()
        .unwrap()
}

pub fn bgrx(width: u32, height: u32) -> gst_video::VideoInfo {
    info(gst_video::VideoFormat::Bgrx, width, height)
}

/// A picture with a corner and a bar that tell every mirroring, shift and
/// wrong stride; no two numbers look alike.
///
/// Made and read by rows, here and below: in an unoptimised test without KVM, a
/// closure for each pixel takes a second for each picture.
pub fn numbered(width: usize, height: usize, number: usize) -> Picture {
    let ground = [
        (number * 37 % 200) as u8,
        (number * 11 % 200 + 30) as u8,
        (255 - number % 200) as u8,
    ];
    let mut plain = ground.repeat(width);
    let bar = number % width;
    plain[bar * 3..bar * 3 + 3].copy_from_slice(&[0, 255, 0]);
    plain[width * 3 - 3..].copy_from_slice(&[255, 0, 0]);
    let mut cornered = plain.clone();
    cornered[..8 * 3].fill(255);
    let mut rgb = cornered.repeat(16);
    rgb.extend(plain.repeat(height - 17));
    rgb.extend([255, 0, 0].repeat(width));
    Picture { width, height, rgb }
}

/// The bytes of a picture in rows of `stride` bytes.
pub fn bgrx_bytes(picture: &Picture, stride: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(stride * picture.height);
    let mut last = None;
    for source in picture.rgb.chunks_exact(picture.width * 3) {
        if last == Some(source) {
            bytes.extend_from_within(bytes.len() - stride..);
            continue;
        }
        last = Some(source);
        bytes.extend(
            source
                .chunks_exact(3)
                .flat_map(|pixel| [pixel[2], pixel[1], pixel[0], 0]),
        );
        bytes.resize(bytes.len() + stride - picture.width * 4, 0);
    }
    bytes
}

/// `top` on `ground`.
pub fn laid_on(ground: &Picture, top: &Picture, at_x: usize, at_y: usize) -> Picture {
    let mut picture = ground.clone();
    for (row, source) in top.rgb.chunks_exact(top.width * 3).enumerate() {
        let start = ((at_y + row) * ground.width + at_x) * 3;
        picture.rgb[start..start + source.len()].copy_from_slice(source);
    }
    picture
}

/// One colour.
pub fn plain(width: usize, height: usize, colour: [u8; 3]) -> Picture {
    Picture {
        width,
        height,
        rgb: colour.repeat(width * height),
    }
}

/// A part of a picture.
pub fn part(picture: &Picture, x: usize, y: usize, width: usize, height: usize) -> Picture {
    let row = |y: usize| &picture.rgb[(y * picture.width + x) * 3..][..width * 3];
    Picture {
        width,
        height,
        rgb: (y..y + height).flat_map(row).copied().collect(),
    }
}

/// A buffer of ordinary memory with this picture.
pub fn buffer_of(picture: &Picture) -> gst::Buffer {
    gst::Buffer::from_slice(bgrx_bytes(picture, picture.width * 4))
}

/// A frame in a dma-buf that is nobody's but this test's.
pub fn dma_frame(picture: &Picture) -> gst::Buffer {
    dma_frame_at(picture, 0, picture.width * 4)
}

/// The same, `offset` bytes into the dma-buf and in rows of `stride` bytes.
pub fn dma_frame_at(picture: &Picture, offset: usize, stride: usize) -> gst::Buffer {
    dma_frame_of(MemoryKind::Cma, picture, offset, stride)
}

/// The same in a udmabuf: vkms takes it for a framebuffer and says yes to
/// TEST_ONLY, but until 6.2 udmabufs have no vmap, and it refuses the commit.
pub fn udmabuf_frame(picture: &Picture) -> gst::Buffer {
    dma_frame_of(MemoryKind::Udmabuf, picture, 0, picture.width * 4)
}

fn dma_frame_of(kind: MemoryKind, picture: &Picture, offset: usize, stride: usize) -> gst::Buffer {
    let mut bytes = vec![0x5a; offset];
    bytes.extend(bgrx_bytes(picture, stride));
    let (fd, size) = heap_buffer(kind, &bytes);
    let allocator = gst_allocators::DmaBufAllocator::new();
    // SAFETY: a dma-buf of `size` bytes that the memory now owns.
    let memory = unsafe { allocator.alloc_dmabuf(fd, size) }.unwrap();
    let mut buffer = gst::Buffer::new();
    let buffer_ref = buffer.get_mut().unwrap();
    // A part of the memory, as one that shares it would hand out.
    buffer_ref.append_memory(if offset > 0 {
        memory.share(offset..bytes.len())
    } else {
        memory
    });
    gst_video::VideoMeta::add_full(
        buffer_ref,
        gst_video::VideoFrameFlags::empty(),
        gst_video::VideoFormat::Bgrx,
        picture.width as u32,
        picture.height as u32,
        &[0],
        &[stride as i32],
    )
    .unwrap();
    buffer
}

/// A dma-buf with these bytes.
fn heap_buffer(kind: MemoryKind, bytes: &[u8]) -> (OwnedFd, usize) {
    let request = Request {
        kind,
        size_bytes: bytes.len(),
        needs_dma_buf: true,
        ..Request::default()
    };
    let region = Region::allocate(&request).unwrap();
    {
        let access = region.begin_access(true).unwrap();
        // SAFETY: the region is at least this large, mapped, and nobody else's.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), access.ptr(), bytes.len()) };
    }
    (
        region.dma_buf().unwrap().try_clone_to_owned().unwrap(),
        region.size_bytes(),
    )
}

/// `picture` in the middle of a black screen.
pub fn centred(picture: &Picture, width: usize, height: usize) -> Picture {
    placed(
        picture,
        width,
        height,
        (width - picture.width) / 4 * 2,
        (height - picture.height) / 4 * 2,
    )
}

pub fn placed(picture: &Picture, width: usize, height: usize, at_x: usize, at_y: usize) -> Picture {
    laid_on(&plain(width, height, [0, 0, 0]), picture, at_x, at_y)
}

/// What vkms scans out, once it has caught up: its CRC worker lags behind the
/// flips on a slow machine. Then it gives what one look at the screen told, perhaps
/// at a frame that is long gone and being rewritten, for all vertical blanks that
/// passed meanwhile: entries that come at once count as one.
pub fn crc_now() -> u32 {
    const BETWEEN_LOOKS: Duration = Duration::from_millis(8);
    let mut stream = VkmsCrc::open();
    let deadline = Instant::now() + LIMIT;
    let mut seen: Vec<u32> = Vec::new();
    let mut came_at = Instant::now();
    loop {
        assert!(
            Instant::now() < deadline,
            "vkms scans out nothing, or never the same: {:08x?}",
            &seen[seen.len().saturating_sub(20)..]
        );
        let entry = stream.next();
        let waited = std::mem::replace(&mut came_at, Instant::now()).elapsed();
        seen.extend(
            entry
                .filter(|_| waited >= BETWEEN_LOOKS)
                .map(|frame| frame.crc),
        );
        if let [.., a, b, c, d] = seen[..]
            && [a, b, c] == [d; 3]
        {
            return d;
        }
    }
}

/// Fails unless vkms comes to scan out what has this CRC.
#[track_caller]
pub fn assert_crc(expected: u32) {
    assert_crc_of(VkmsCrc::open(), expected);
}

/// The same of one CRTC of several.
#[track_caller]
pub fn assert_crc_of(mut stream: VkmsCrc, expected: u32) {
    let deadline = Instant::now() + LIMIT;
    let mut seen = Vec::new();
    while Instant::now() < deadline && seen.len() < 300 {
        if let Some(frame) = stream.next() {
            if frame.crc == expected {
                return;
            }
            seen.push(frame.crc);
        }
    }
    seen.dedup();
    panic!("{expected:08x} does not come; {seen:08x?}");
}

/// Fails unless vkms comes to scan out exactly this picture.
#[track_caller]
pub fn assert_on_screen(picture: &Picture) {
    assert_crc(picture.vkms_crc());
}
