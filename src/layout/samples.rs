// SPDX-License-Identifier: MPL-2.0
//! Layouts for tests, and slow, obvious copies to compare with.

use super::Layout;
#[cfg(test)]
use proptest::prelude::*;

#[cfg(test)]
pub fn info(format: gst_video::VideoFormat, width: u32, height: u32) -> gst_video::VideoInfo {
    gst_video::VideoInfo::builder(format, width, height)
        .build()
        .unwrap()
}

#[cfg(test)]
pub fn format() -> impl Strategy<Value = gst_video::VideoFormat> {
    gst::init().unwrap();
    proptest::sample::select(gst_video::VideoFormat::iter_raw().collect::<Vec<_>>())
}

#[cfg(test)]
/// The default layout with `padding_bytes` more in each stride, unless the format is tiled.
pub fn padded(info: &gst_video::VideoInfo, padding_bytes: usize) -> Layout {
    let stock = Layout::of_info(info);
    if info.format_info().is_tiled() {
        return stock;
    }
    let strides = stock.planes().iter();
    let strides: Vec<i32> = strides
        .map(|plane| (plane.stride_bytes + padding_bytes) as i32)
        .collect();
    Layout::custom(info, &strides, &[], 0).unwrap()
}

/// The frame copied row by row; padding is 0xEE.
pub fn naive(from: &[u8], source: &Layout, target: &Layout) -> Vec<u8> {
    let mut to = vec![0xEE; target.size_bytes];
    for (a, b) in source.planes().iter().zip(target.planes()) {
        for row in 0..a.rows {
            to[b.row(row)].copy_from_slice(&from[a.row(row)]);
        }
    }
    to
}

pub fn rows_of<'a>(bytes: &'a [u8], layout: &Layout) -> Vec<&'a [u8]> {
    let planes = layout.planes().iter();
    planes
        .flat_map(|plane| (0..plane.rows).map(|row| &bytes[plane.row(row)]))
        .collect()
}

/// A buffer whose meta is not compared with its size, as gst_video_meta_deserialize() makes it.
pub fn buffer_with_meta(
    info: &gst_video::VideoInfo,
    places: &[(usize, usize)],
    size: usize,
) -> gst::Buffer {
    let mut buffer = gst::Buffer::with_size(size).unwrap();
    let (mut offsets, mut strides) = ([0; 4], [0; 4]);
    for (n, &(offset, stride)) in places.iter().enumerate() {
        (offsets[n], strides[n]) = (offset, stride as i32);
    }
    // SAFETY: the buffer is writable, and both arrays have four numbers.
    unsafe {
        gst_video::ffi::gst_buffer_add_video_meta_full(
            buffer.get_mut().unwrap().as_mut_ptr(),
            0,
            gst::glib::translate::IntoGlib::into_glib(info.format()),
            info.width(),
            info.height(),
            places.len() as u32,
            &offsets,
            &strides,
        );
    }
    buffer
}
