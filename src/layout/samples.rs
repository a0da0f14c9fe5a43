// SPDX-License-Identifier: MPL-2.0
//! Layouts for the tests of this room and of those that carry frames, and the slow and
//! obvious ways that theirs are measured by.

use super::FrameLayout;
use proptest::prelude::*;

pub fn info(format: gst_video::VideoFormat, width: u32, height: u32) -> gst_video::VideoInfo {
    gst_video::VideoInfo::builder(format, width, height)
        .build()
        .unwrap()
}

/// Any format.
pub fn format() -> impl Strategy<Value = gst_video::VideoFormat> {
    gst::init().unwrap();
    proptest::sample::select(gst_video::VideoFormat::iter_raw().collect::<Vec<_>>())
}

/// The stock layout with so many bytes more in each stride, if the format allows it.
pub fn padded(info: &gst_video::VideoInfo, padding_bytes: usize) -> FrameLayout {
    let stock = FrameLayout::of_info(info);
    if info.format_info().is_tiled() {
        return stock;
    }
    let strides = stock.planes().iter();
    let strides: Vec<i32> = strides
        .map(|plane| (plane.stride_bytes + padding_bytes) as i32)
        .collect();
    FrameLayout::custom(info, &strides, &[], 0).unwrap()
}

/// The frame copied by walking its rows; padding is 0xEE.
pub fn naive(from: &[u8], source: &FrameLayout, target: &FrameLayout) -> Vec<u8> {
    let mut to = vec![0xEE; target.size_bytes];
    for (a, b) in source.planes().iter().zip(target.planes()) {
        for row in 0..a.rows {
            to[b.row(row)].copy_from_slice(&from[a.row(row)]);
        }
    }
    to
}

/// The picture bytes.
pub fn rows_of<'a>(bytes: &'a [u8], layout: &FrameLayout) -> Vec<&'a [u8]> {
    let planes = layout.planes().iter();
    planes
        .flat_map(|plane| (0..plane.rows).map(|row| &bytes[plane.row(row)]))
        .collect()
}
