// SPDX-License-Identifier: MPL-2.0
//! Copies a part of a mapped frame into another, and makes a frame black.

use gst_video::prelude::*;

use super::{Plane, device_copy};

/// The part of a plane of a mapped frame that lies in a rectangle. `x` and `y`, the upper left
/// corner, are whole pixels in every plane. Offsets count from the plane's start.
fn plane_of_area(
    frame: &impl VideoFrameExt,
    plane: u32,
    (x, y): (u32, u32),
    (width, height): (u32, u32),
) -> Plane {
    let format = frame.format_info();
    let mut area = Plane {
        stride_bytes: usize::try_from(frame.plane_stride()[plane as usize]).unwrap_or(0),
        ..Plane::default()
    };
    for component in (0..format.n_components() as usize).rev() {
        if format.plane()[component] != plane {
            continue;
        }
        let (w_sub, h_sub) = (format.w_sub()[component], format.h_sub()[component]);
        let pixel_bytes = format.pixel_stride()[component].max(1) as usize;
        area.offset_bytes =
            (y >> h_sub) as usize * area.stride_bytes + (x >> w_sub) as usize * pixel_bytes;
        // In packed 4:2:2 an odd last pixel needs the chroma of a whole pair.
        let row_bytes = width.div_ceil(1 << w_sub) as usize * pixel_bytes;
        area.row_bytes = area.row_bytes.max(row_bytes);
        area.rows = area.rows.max(height.div_ceil(1 << h_sub) as usize);
    }
    area
}

/// Copies the rectangle of `size` at `src` to `dst` in another frame of the same format, which a
/// device shows. Rows that one of the frames does not have are left out.
pub(crate) fn copy_area(
    from: &gst_video::VideoFrameRef<&gst::BufferRef>,
    src: (u32, u32),
    size: (u32, u32),
    to: &mut gst_video::VideoFrameRef<&mut gst::BufferRef>,
    dst: (u32, u32),
) {
    for plane in 0..from.n_planes() {
        let source = plane_of_area(from, plane, src, size);
        let target = plane_of_area(to, plane, dst, size);
        let (Ok(from), Ok(to)) = (from.plane_data(plane), to.plane_data_mut(plane)) else {
            continue;
        };
        for row in 0..source.rows {
            let (Some(from), Some(to)) = (from.get(source.row(row)), to.get_mut(target.row(row)))
            else {
                break;
            };
            device_copy::copy_row(from, to);
        }
    }
    device_copy::finish();
}

/// Makes a frame black and opaque, including its padding. In YUV formats black is not zero.
pub(crate) fn fill_black(frame: &mut gst_video::VideoFrameRef<&mut gst::BufferRef>) {
    let format = frame.format_info();
    for plane in 0..frame.n_planes() {
        if let Ok(bytes) = frame.plane_data_mut(plane) {
            bytes.fill(0);
        }
    }
    for component in 0..format.n_components() as usize {
        let pixel_bytes = format.pixel_stride()[component].max(1) as usize;
        let depth = format.depth()[component];
        let shift = match component {
            // GStreamer gives no shift for the two alpha bits at the top of an RGB10A2 word.
            3 if depth < 8 => 8 * pixel_bytes as u32 - depth,
            _ => format.shift()[component],
        };
        let level: u32 = match (component, format.is_yuv()) {
            (3, _) => (1 << depth) - 1,
            (0, true) => 16 << (depth - 8),
            (_, true) => 128 << (depth - 8),
            (_, false) => continue,
        };
        let value = (level << shift).to_le_bytes();
        let sample_bytes = (depth + shift).div_ceil(8) as usize;
        // GStreamer 1.22 gives the offsets of P010 in samples.
        let start = match format.poffset()[component] as usize {
            offset if offset % sample_bytes == 0 => offset,
            samples => samples * sample_bytes,
        };
        if let Ok(bytes) = frame.plane_data_mut(format.plane()[component]) {
            let start = start.min(bytes.len());
            for pixel in bytes[start..].chunks_mut(pixel_bytes) {
                if let Some(sample) = pixel.get_mut(..sample_bytes) {
                    sample.copy_from_slice(&value[..sample_bytes]);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::samples;
    use super::*;
    use gst_video::VideoFormat;

    /// Formats that KMS shows, of all kinds.
    const FORMATS: [VideoFormat; 12] = [
        VideoFormat::Bgrx,
        VideoFormat::Bgr,
        VideoFormat::Rgb16,
        VideoFormat::Bgr10a2Le,
        VideoFormat::Nv12,
        VideoFormat::Nv16,
        VideoFormat::Nv24,
        VideoFormat::P01010le,
        VideoFormat::I420,
        VideoFormat::Y42b,
        VideoFormat::Yuy2,
        VideoFormat::Gray8,
    ];

    fn info(format: VideoFormat, width: u32, height: u32) -> gst_video::VideoInfo {
        gst::init().unwrap();
        samples::info(format, width, height)
    }

    fn counted(
        info: &gst_video::VideoInfo,
    ) -> gst_video::VideoFrame<gst_video::video_frame::Readable> {
        let bytes: Vec<u8> = (0..info.size()).map(|i| (i % 251) as u8).collect();
        let buffer = gst::Buffer::from_slice(bytes);
        gst_video::VideoFrame::from_buffer_readable(buffer, info).unwrap()
    }

    fn black(
        info: &gst_video::VideoInfo,
    ) -> gst_video::VideoFrame<gst_video::video_frame::Writable> {
        let buffer = gst::Buffer::with_size(info.size()).unwrap();
        let mut frame = gst_video::VideoFrame::from_buffer_writable(buffer, info).unwrap();
        fill_black(&mut frame.as_mut_video_frame_ref());
        frame
    }

    #[test]
    fn every_format_is_copied_whole() {
        for format in FORMATS {
            for (width, height) in [(64, 32), (33, 17)] {
                let info = info(format, width, height);
                let from = counted(&info);
                let mut to = black(&info);
                copy_area(
                    &from.as_video_frame_ref(),
                    (0, 0),
                    (width, height),
                    &mut to.as_mut_video_frame_ref(),
                    (0, 0),
                );
                let layout = super::super::Layout::of_info(&info);
                let picture = |frame: &[u8]| samples::rows_of(frame, &layout).concat();
                let (from, to) = (from.into_buffer(), to.into_buffer());
                let (from, to) = (from.map_readable().unwrap(), to.map_readable().unwrap());
                assert!(
                    picture(&from) == picture(&to),
                    "{format:?} {width}x{height}"
                );
            }
        }
    }

    #[test]
    fn a_part_lands_where_it_is_put_and_the_rest_stays_black() {
        let (small, large) = (
            info(VideoFormat::I420, 8, 4),
            info(VideoFormat::I420, 16, 8),
        );
        let from = counted(&small);
        let mut to = black(&large);
        copy_area(
            &from.as_video_frame_ref(),
            (2, 2),
            (4, 2),
            &mut to.as_mut_video_frame_ref(),
            (6, 4),
        );
        let luma = to.plane_data(0).unwrap();
        assert_eq!(
            luma[4 * 16 + 6..4 * 16 + 10],
            from.plane_data(0).unwrap()[2 * 8 + 2..2 * 8 + 6]
        );
        assert_eq!(luma[4 * 16 + 5], 16);
        assert_eq!(luma.iter().filter(|&&byte| byte != 16).count(), 8);
        let chroma = to.plane_data(1).unwrap();
        assert_eq!(
            chroma[2 * 8 + 3..2 * 8 + 5],
            from.plane_data(1).unwrap()[4 + 1..4 + 3]
        );
        assert_eq!(chroma.iter().filter(|&&byte| byte != 128).count(), 2);
    }

    #[test]
    fn black_is_black_in_every_colour_space() {
        assert!(
            black(&info(VideoFormat::Bgrx, 4, 4))
                .plane_data(0)
                .unwrap()
                .iter()
                .all(|&b| b == 0)
        );
        assert_eq!(
            black(&info(VideoFormat::Yuy2, 4, 1)).plane_data(0).unwrap()[..4],
            [16, 128, 16, 128]
        );
        assert_eq!(
            black(&info(VideoFormat::Uyvy, 4, 1)).plane_data(0).unwrap()[..4],
            [128, 16, 128, 16]
        );
        for (format, pixel) in [
            (VideoFormat::Bgra, [0, 0, 0, 255]),
            (VideoFormat::Argb, [255, 0, 0, 0]),
            (VideoFormat::Bgr10a2Le, [0, 0, 0, 0xc0]),
        ] {
            let opaque = black(&info(format, 4, 1));
            assert_eq!(opaque.plane_data(0).unwrap()[..4], pixel, "{format:?}");
        }
        let p010 = black(&info(VideoFormat::P01010le, 4, 2));
        assert_eq!(p010.plane_data(0).unwrap()[..2], [0, 16]);
        assert_eq!(p010.plane_data(1).unwrap()[..4], [0, 128, 0, 128]);
    }
}
