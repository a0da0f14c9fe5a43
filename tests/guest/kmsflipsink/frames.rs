// SPDX-License-Identifier: MPL-2.0
//! Frames to feed a kmsflipsink with, and the picture that vkms scans out for them.

use std::io::Write;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use gst_allocators::prelude::*;
use gst_video::{
    VideoMeta, VideoOverlayComposition, VideoOverlayCompositionMeta, VideoOverlayFormatFlags,
    VideoOverlayRectangle,
};
use gstphysmem::memory::{MemoryKind, Region, Request};

use crate::support::player::{LIMIT, Player};
use crate::support::{Picture, PixelCrc, VkmsCrc};

impl Player {
    /// A pipeline of an appsrc called "src" and a kmsflipsink with these properties, which shows
    /// frames as they arrive.
    pub fn with_appsrc(sink: &str) -> Self {
        Self::new(&format!(
            "appsrc name=src format=time is-live=false ! kmsflipsink name=sink sync=false {sink}"
        ))
    }

    /// A player in PLAYING that expects frames of 640x480 in the mode of that size.
    #[track_caller]
    pub fn playing(sink: &str) -> Self {
        let player = Self::with_appsrc(&format!("mode=640x480 {sink}"));
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

/// A test picture with a corner and a bar that show every mirroring, shift and wrong stride.
/// Pictures with different numbers differ.
///
/// This function and those below work by rows: in an unoptimised test without KVM, a closure for
/// each pixel takes a second for each picture.
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

/// The picture as BGRx in rows of `stride` bytes.
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

/// Plays a frame of 640x480 whose colours need 16 bits, in one of the formats BGRA64_LE and RGBA64_LE. Fails if vkms does
/// not show it without a copy, and bit for bit.
#[track_caller]
pub fn assert_deep_rgb_is_shown(format: gst_video::VideoFormat, stream: impl Fn() -> VkmsCrc) {
    const W: usize = 640;
    const H: usize = 480;
    // Four rows, again and again.
    let mut rows = vec![Vec::new(); 4];
    let mut words = rows.clone();
    for (y, (row, words)) in rows.iter_mut().zip(&mut words).enumerate() {
        for x in 0..W {
            let [r, g, b] = [x * 101 + y, x * 57 + 3 * y, x * 89 + 7 * y].map(|n| n as u16);
            // The order in memory, and that of `struct pixel_argb_u16` of vkms.
            let pixel = match format {
                gst_video::VideoFormat::Rgba64Le => [r, g, b, u16::MAX],
                _ => [b, g, r, u16::MAX],
            };
            row.extend(pixel.iter().flat_map(|word| word.to_le_bytes()));
            let shown = [u16::MAX, r, g, b];
            words.extend(shown.iter().flat_map(|word| word.to_le_bytes()));
        }
    }
    let mut crc = PixelCrc::new();
    let mut file = tempfile::NamedTempFile::new().unwrap();
    for y in 0..H {
        file.write_all(&rows[y % 4]).unwrap();
        crc.add(&words[y % 4]);
    }
    let player = Player::new(&format!(
        "rawvideosrc location={} format={} width={W} height={H} framerate=60/1 \
         ! kmsflipsink name=sink mode=640x480 sync=false",
        file.path().display(),
        format.to_str().to_lowercase().replace('_', "-"),
    ));
    player.set_state(gst::State::Playing);
    player.wait_for_end();
    let counts = (player.count("zero-copy"), player.count("copied"));
    assert_eq!(counts, (1, 0), "{}", player.stats());
    assert_crc_of(stream(), crc.finish());
}

/// `ground` with `top` drawn over it at this place.
pub fn laid_on(ground: &Picture, top: &Picture, at_x: usize, at_y: usize) -> Picture {
    let mut picture = ground.clone();
    for (row, source) in top.rgb.chunks_exact(top.width * 3).enumerate() {
        let start = ((at_y + row) * ground.width + at_x) * 3;
        picture.rgb[start..start + source.len()].copy_from_slice(source);
    }
    picture
}

pub fn plain(width: usize, height: usize, colour: [u8; 3]) -> Picture {
    Picture {
        width,
        height,
        rgb: colour.repeat(width * height),
    }
}

pub fn part(picture: &Picture, x: usize, y: usize, width: usize, height: usize) -> Picture {
    let row = |y: usize| &picture.rgb[(y * picture.width + x) * 3..][..width * 3];
    Picture {
        width,
        height,
        rgb: (y..y + height).flat_map(row).copied().collect(),
    }
}

pub fn buffer_of(picture: &Picture) -> gst::Buffer {
    gst::Buffer::from_slice(bgrx_bytes(picture, picture.width * 4))
}

/// A rectangle of an overlay composition, with this picture in premultiplied BGRA, at this place in
/// the frame.
pub fn overlay_rectangle(
    bgra: Vec<u8>,
    (width, height): (usize, usize),
    (x, y): (i32, i32),
) -> VideoOverlayRectangle {
    let (width, height) = (width as u32, height as u32);
    let mut pixels = gst::Buffer::from_mut_slice(bgra);
    let none = gst_video::VideoFrameFlags::empty();
    let format = gst_video::VideoFormat::Bgra;
    VideoMeta::add(pixels.make_mut(), none, format, width, height).unwrap();
    let premultiplied = VideoOverlayFormatFlags::PREMULTIPLIED_ALPHA;
    VideoOverlayRectangle::new_raw(&pixels, x, y, width, height, premultiplied)
}

/// An opaque one.
pub fn opaque_rectangle(picture: &Picture, at: (i32, i32)) -> VideoOverlayRectangle {
    overlay_rectangle(bgra_bytes(picture), (picture.width, picture.height), at)
}

/// The picture as opaque BGRA.
pub fn bgra_bytes(picture: &Picture) -> Vec<u8> {
    let mut bytes = bgrx_bytes(picture, picture.width * 4);
    bytes
        .iter_mut()
        .skip(3)
        .step_by(4)
        .for_each(|alpha| *alpha = 255);
    bytes
}

/// A composition of these rectangles. Made from references: of rectangles that it takes over, gstreamer-video 0.25 never
/// gives up its own reference.
pub fn composed<const N: usize>(rectangles: [VideoOverlayRectangle; N]) -> VideoOverlayComposition {
    rectangles.iter().collect()
}

/// The frame with a GstVideoOverlayCompositionMeta, as textoverlay adds it.
pub fn with_overlay(mut frame: gst::Buffer, composition: &VideoOverlayComposition) -> gst::Buffer {
    VideoOverlayCompositionMeta::add(frame.make_mut(), composition);
    frame
}

/// The picture into which GStreamer has blended the composition.
pub fn blended_by_gstreamer(picture: &Picture, composition: &VideoOverlayComposition) -> Picture {
    let info = bgrx(picture.width as u32, picture.height as u32);
    let mut buffer = gst::Buffer::from_mut_slice(bgrx_bytes(picture, picture.width * 4));
    let mut frame =
        gst_video::VideoFrameRef::from_buffer_ref_writable(buffer.make_mut(), &info).unwrap();
    composition.blend(&mut frame).unwrap();
    drop(frame);
    let bytes = buffer.map_readable().unwrap();
    let mut rgb = Vec::with_capacity(picture.rgb.len());
    for pixel in bytes.chunks_exact(4) {
        rgb.extend_from_slice(&[pixel[2], pixel[1], pixel[0]]);
    }
    Picture { rgb, ..*picture }
}

/// A frame in a dma-buf of its own, which no pool knows.
pub fn dma_frame(picture: &Picture) -> gst::Buffer {
    dma_frame_at(picture, 0, picture.width * 4)
}

/// The same, `offset` bytes into the dma-buf and in rows of `stride` bytes.
pub fn dma_frame_at(picture: &Picture, offset: usize, stride: usize) -> gst::Buffer {
    dma_frame_of(MemoryKind::Cma, picture, offset, stride)
}

/// The same in a udmabuf. vkms makes a framebuffer of it and accepts it in TEST_ONLY, but udmabufs
/// have no vmap before 6.2, and the real commit is refused.
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
    // With an offset, the buffer has a sub-memory, as elements make it with gst_memory_share().
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

/// A dma-buf with these bytes, whose planes only the meta describes: `places` are offset and stride of each.
#[cfg(feature = "v1_24")]
pub fn dma_frame_of_fourcc(bytes: &[u8], size: (u32, u32), places: &[(usize, i32)]) -> gst::Buffer {
    let (fd, size_bytes) = heap_buffer(MemoryKind::Cma, bytes);
    let allocator = gst_allocators::DmaBufAllocator::new();
    // SAFETY: a dma-buf of `size_bytes` that the memory now owns.
    let memory = unsafe { allocator.alloc_dmabuf(fd, size_bytes) }.unwrap();
    let mut buffer = gst::Buffer::new();
    let buffer_ref = buffer.get_mut().unwrap();
    buffer_ref.append_memory(memory);
    let (offsets, strides): (Vec<_>, Vec<_>) = places.iter().copied().unzip();
    gst_video::VideoMeta::add_full(
        buffer_ref,
        gst_video::VideoFrameFlags::empty(),
        gst_video::VideoFormat::DmaDrm,
        size.0,
        size.1,
        &offsets,
        &strides,
    )
    .unwrap();
    buffer
}

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

/// `picture` in the middle of a black screen of this size.
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

/// The CRC of what vkms scans out, once it is stable. vkms's CRC worker lags behind the flips on a
/// slow machine. It then reports the CRC that it computed once, perhaps of an old frame that is
/// being rewritten, for all vertical blanks that passed meanwhile. So entries that arrive at once
/// count as one.
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

/// Waits until vkms scans out a picture with this CRC, and fails if that does not happen.
#[track_caller]
pub fn assert_crc(expected: u32) {
    assert_crc_of(VkmsCrc::open(), expected);
}

/// The same for one CRTC of several.
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

/// Waits until vkms scans out exactly this picture, and fails if that does not happen.
#[track_caller]
pub fn assert_on_screen(picture: &Picture) {
    assert_crc(picture.vkms_crc());
}
