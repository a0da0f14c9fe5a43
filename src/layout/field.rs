// SPDX-License-Identifier: MPL-2.0
//! Copies single fields into frames.

use gst_video::prelude::*;

use super::{Layout, device_copy};

/// Copies a field of `layout` into every second row of a frame of the same format, which a device shows. `first_row` is 0
/// for the top field, and 1 for the bottom one. Rows that the field does not have are left out.
pub(crate) fn copy_field(
    field: &[u8],
    layout: &Layout,
    to: &mut gst_video::VideoFrameRef<&mut gst::BufferRef>,
    first_row: usize,
) {
    for (plane, source) in (0..to.n_planes()).zip(layout.planes()) {
        let stride_bytes = usize::try_from(to.plane_stride()[plane as usize]).unwrap_or(0);
        let Ok(to) = to.plane_data_mut(plane) else {
            continue;
        };
        for row in 0..source.rows {
            let start = (2 * row + first_row) * stride_bytes;
            let target = to.get_mut(start..start + source.row_bytes);
            let (Some(from), Some(target)) = (field.get(source.row(row)), target) else {
                break;
            };
            device_copy::copy_row(from, target);
        }
    }
    device_copy::finish();
}

#[cfg(test)]
mod tests {
    use gst_video::VideoFormat;

    use super::*;
    use crate::layout::samples;

    type Field = (Layout, Vec<u8>);

    /// The bytes of a frame, and those of its fields, which begin with the first and the second row.
    fn split(format: VideoFormat) -> (gst_video::VideoInfo, Vec<u8>, [Field; 2]) {
        gst::init().unwrap();
        let info = samples::info(format, 16, 8);
        let bytes: Vec<u8> = (0..info.size()).map(|i| (i % 251) as u8).collect();
        let fields = samples::info(format, 16, 4);
        let (whole, field) = (Layout::of_info(&info), Layout::of_info(&fields));
        let of = |first_row: usize| {
            let mut of_field = vec![0; field.size_bytes];
            for (from, to) in whole.planes().iter().zip(field.planes()) {
                assert_eq!(from.rows, 2 * to.rows, "{format:?}");
                for row in 0..to.rows {
                    let source = &bytes[from.row(2 * row + first_row)];
                    of_field[to.row(row)].copy_from_slice(source);
                }
            }
            (field, of_field)
        };
        let fields = [of(0), of(1)];
        (info, bytes, fields)
    }

    #[test]
    fn two_fields_of_any_format_make_the_frame() {
        for format in [
            VideoFormat::Bgrx,
            VideoFormat::Yuy2,
            VideoFormat::Nv12,
            VideoFormat::I420,
            VideoFormat::P01010le,
            VideoFormat::Nv1210le40,
        ] {
            let (info, bytes, fields) = split(format);
            let buffer = gst::Buffer::with_size(info.size()).unwrap();
            let mut frame = gst_video::VideoFrame::from_buffer_writable(buffer, &info).unwrap();
            for (first_row, (layout, field)) in fields.iter().enumerate() {
                copy_field(
                    field,
                    layout,
                    &mut frame.as_mut_video_frame_ref(),
                    first_row,
                );
            }
            let buffer = frame.into_buffer();
            let whole = Layout::of_info(&info);
            let map = buffer.map_readable().unwrap();
            for plane in whole.planes() {
                for row in 0..plane.rows {
                    assert_eq!(map[plane.row(row)], bytes[plane.row(row)], "{format:?}");
                }
            }
        }
    }

    #[test]
    fn a_field_that_is_too_short_or_too_high_is_copied_as_far_as_it_goes() {
        let (info, bytes, [(layout, field), _]) = split(VideoFormat::Bgrx);
        let mut frame = {
            let buffer = gst::Buffer::from_mut_slice(vec![0; info.size()]);
            gst_video::VideoFrame::from_buffer_writable(buffer, &info).unwrap()
        };
        // The last row would lie beyond the frame.
        copy_field(&field, &layout, &mut frame.as_mut_video_frame_ref(), 2);
        copy_field(
            &field[..100],
            &layout,
            &mut frame.as_mut_video_frame_ref(),
            0,
        );
        let buffer = frame.into_buffer();
        assert_eq!(buffer.map_readable().unwrap()[..64], bytes[..64]);
    }
}
