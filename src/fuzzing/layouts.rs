// SPDX-License-Identifier: MPL-2.0
//! Target: the layout of frames of any format, size, strides and offsets.

use std::sync::LazyLock;

use gst_video::{VideoFormat, VideoInfo};

use super::Input;
use crate::{
    foreign,
    layout::{Layout, LayoutError, MAX_PLANES, Transfer, samples},
};

/// Frames up to this size are copied.
const MAX_COPIED_BYTES: usize = 1 << 16;

static FORMATS: LazyLock<Vec<VideoFormat>> = LazyLock::new(|| {
    gst::init().expect("GStreamer");
    VideoFormat::iter_raw().collect()
});

/// A format, a size, and strides, offsets and a frame size as a property, a driver or another element dictates them.
pub fn layout(bytes: &[u8]) {
    let mut input = Input(bytes);
    let format = FORMATS[usize::from(input.u8()) % FORMATS.len()];
    let flags = input.u8();
    let (width, height) = match flags & 1 {
        0 => (u32::from(input.u8()) + 1, u32::from(input.u8()) + 1),
        _ => (input.u32(), input.u32()),
    };
    let Ok(info) = VideoInfo::builder(format, width, height).build() else {
        return;
    };
    let stock = Layout::of_info(&info);
    assert_inside(&stock);
    let packed = Layout::packed(&info);
    assert_inside(&packed);
    assert!(packed.size_bytes <= stock.size_bytes);
    if let Ok(layout) = Layout::with_first_stride(&info, input.u32()) {
        assert_inside(&layout);
        assert!(u32::try_from(layout.size_bytes).is_ok());
    }
    let planes = match flags & 2 {
        0 => stock.n_planes,
        _ => usize::from(input.u8()),
    };
    let strides: Vec<i32> = (0..planes * usize::from(flags >> 2 & 1))
        .map(|_| near_stride(&mut input, &stock))
        .collect();
    let offsets: Vec<usize> = (0..planes * usize::from(flags >> 3 & 1))
        .map(|_| input.edgy() as usize)
        .collect();
    let size_bytes = if flags & 16 == 0 {
        0
    } else {
        input.edgy() as usize
    };
    match Layout::custom(&info, &strides, &offsets, size_bytes) {
        Ok(custom) => {
            assert_inside(&custom);
            if size_bytes > 0 {
                assert_eq!(custom.size_bytes, size_bytes);
            }
            for (stride, plane) in strides.iter().zip(custom.planes()) {
                let is_tiled = info.format_info().is_tiled();
                assert!(is_tiled || usize::try_from(*stride).unwrap_or(0) == plane.stride_bytes);
            }
            assert_copied(&stock, &custom);
            assert_copied(&custom, &stock);
        }
        Err(error) => assert_ne!(error.to_string(), ""),
    }
    foreign_frame(&info, &stock, &mut input);
}

/// A stride, most of the time a little more than a row needs.
fn near_stride(input: &mut Input<'_>, stock: &Layout) -> i32 {
    let least = stock.planes[0].row_bytes as i32;
    match input.u8() {
        more @ 0..200 => least.saturating_add(more.into()),
        _ => input.u32() as i32,
    }
}

/// Every plane ends inside the frame, and no row is wider than the stride.
fn assert_inside(layout: &Layout) {
    for plane in layout.planes() {
        assert!(
            plane
                .end_bytes()
                .is_some_and(|end| end <= layout.size_bytes),
            "{layout:?}"
        );
        assert!(
            plane.row_bytes <= plane.stride_bytes || plane.rows <= 1,
            "{layout:?}"
        );
    }
}

/// The runs of a transfer carry each row to its place and, if padding is kept, nothing elsewhere.
fn assert_copied(source: &Layout, target: &Layout) {
    if source.size_bytes.max(target.size_bytes) > MAX_COPIED_BYTES {
        return;
    }
    let from: Vec<u8> = (0..source.size_bytes)
        .map(|i| (i ^ i >> 8) as u8 & 0x7f)
        .collect();
    let expected = samples::naive(&from, source, target);
    for padding_is_free in [false, true] {
        let transfer = Transfer::new(source, target, false, padding_is_free);
        for count in [1, 3] {
            let shares = transfer.split(count);
            let len_bytes = shares.iter().map(Transfer::len_bytes).sum::<usize>();
            assert!(shares.len() <= count && len_bytes == transfer.len_bytes());
            let mut to = vec![0xee; target.size_bytes];
            for run in shares.iter().flat_map(Transfer::runs) {
                let read = &from[run.source_bytes..][..run.len_bytes];
                run.target(0, &mut to).copy_from_slice(read);
            }
            if !padding_is_free {
                assert!(to == expected, "{source:?} {target:?}");
            }
            // Planes that lie over one another overwrite rows of each other.
            if target.overlap().is_none() {
                let rows = samples::rows_of(&to, target);
                assert!(
                    rows == samples::rows_of(&expected, target),
                    "{source:?} {target:?}"
                );
            }
        }
    }
}

/// A buffer of another process, whose GstVideoMeta has any numbers.
fn foreign_frame(info: &VideoInfo, stock: &Layout, input: &mut Input<'_>) {
    if stock.size_bytes > MAX_COPIED_BYTES {
        return;
    }
    let planes = usize::from(input.u8()) % (MAX_PLANES + 1);
    let places: Vec<(usize, usize)> = (0..planes)
        .map(|index| match input.u8() {
            0..100 => (
                stock.planes[index].offset_bytes + usize::from(input.u8()),
                near_stride(input, stock) as usize,
            ),
            _ => (input.edgy() as usize, near_stride(input, stock) as usize),
        })
        .collect();
    let size = stock.size_bytes + usize::from(input.u16() % 4096);
    let buffer = samples::buffer_with_meta(info, &places, size);
    match foreign::layout(info, &buffer) {
        Ok(layout) => {
            assert_inside(&layout);
            assert_eq!((layout.size_bytes, layout.overlap()), (size, None));
            let frame = foreign::map(info, &buffer).expect("a frame that was checked");
            for (index, plane) in layout.planes().iter().enumerate() {
                // A palette is no plane of pixels.
                let Ok(data) = frame.plane_data(index as u32) else {
                    continue;
                };
                let end_bytes = plane.end_bytes().unwrap_or(usize::MAX);
                assert!(data.len() >= end_bytes - plane.offset_bytes);
            }
        }
        Err(error) => assert_ne!(error.to_string(), ""),
    }
    let refused = Layout::of_buffer(info, &buffer).err();
    assert!(!matches!(refused, Some(LayoutError::Count { .. })));
}
