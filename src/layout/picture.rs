// SPDX-License-Identifier: MPL-2.0
//! Copies a part of a mapped frame into another, and makes a frame black.

use gst_video::prelude::*;

use super::{Layout, Plane, device_copy};

/// The part of a plane of a mapped frame that lies in a rectangle. `x` and `y`, the upper left
/// corner, are whole pixels in every plane. Offsets count from the plane's start. If pixels are not
/// whole bytes, the part begins at the left edge.
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
    if format.pixel_stride()[0] == 0 {
        // No pixel has a place of its own, so the area begins with the row.
        let info = gst_video::VideoInfo::builder(format.format(), x + width, height).build();
        let rows = info.map(|info| Layout::of_info(&info).planes[plane as usize]);
        let Plane {
            row_bytes, rows, ..
        } = rows.unwrap_or_default();
        let h_sub = format.h_sub()[plane as usize];
        area.offset_bytes = (y >> h_sub) as usize * area.stride_bytes;
        (area.row_bytes, area.rows) = (row_bytes, rows);
        return area;
    }
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

/// Copies a whole frame of `info` into another one. The frames may have padding, and none behind their last rows, which
/// gst_video_frame_copy() of GStreamer 1.26 and later would read and write.
pub(crate) fn copy_frame(
    info: &gst_video::VideoInfo,
    from: &gst_video::VideoFrameRef<&gst::BufferRef>,
    to: &mut gst_video::VideoFrameRef<&mut gst::BufferRef>,
) -> Result<(), gst::glib::BoolError> {
    let format = info.format_info();
    if format.is_tiled() {
        // Tiles are not rows, and are only taken without padding.
        return from.copy(to);
    }
    let size = (info.width(), info.field_height());
    copy_area(from, (0, 0), size, to, (0, 0));
    match format.has_palette() {
        true => from.copy_plane(to, 1),
        false => Ok(()),
    }
}

/// Makes a frame black and opaque, including its padding. In YUV formats black is not zero.
pub(crate) fn fill_black(frame: &mut gst_video::VideoFrameRef<&mut gst::BufferRef>) {
    let format = frame.format_info();
    if !has_places(&format) {
        return fill_with_black_row(frame);
    }
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

/// Whether GStreamer's description of the format says where each sample is. It does not if pixels are not whole bytes,
/// and for Y210, Y410 and their like it has no offsets.
fn has_places(format: &gst_video::VideoFormatInfo) -> bool {
    let is_packed_yuv = format.is_yuv() && format.n_planes() == 1 && format.n_components() > 1;
    let has_offsets = format.poffset().iter().any(|&offset| offset > 0);
    format.pixel_stride()[0] > 0 && (has_offsets || !is_packed_yuv)
}

/// Makes a frame black by packing one row, whose bytes all rows get. Padding is filled with zeros.
fn fill_with_black_row(frame: &mut gst_video::VideoFrameRef<&mut gst::BufferRef>) {
    let format = frame.format_info();
    let unpacked = gst_video::VideoFormatInfo::from_format(format.unpack_format());
    let depth = unpacked.depth()[0];
    let (width, n_planes) = (frame.width() as usize, frame.n_planes());
    let luma = if format.is_gray() { 0 } else { 16 };
    // The four values of a pixel of AYUV or AYUV64.
    let levels: [u32; 4] = [
        (1 << depth) - 1,
        luma << (depth - 8),
        128 << (depth - 8),
        128 << (depth - 8),
    ];
    let words = levels.map(u32::to_le_bytes);
    let samples = words.iter().flat_map(|word| &word[..depth as usize / 8]);
    let pixel: Vec<u8> = samples.copied().collect();
    let strides = frame.plane_stride()[..n_planes as usize].to_vec();
    let rows = strides
        .iter()
        .map(|&stride| vec![0; stride.max(0) as usize]);
    let mut rows: Vec<Vec<u8>> = rows.collect();
    let mut planes: Vec<&mut [u8]> = rows.iter_mut().map(Vec::as_mut_slice).collect();
    format.pack(
        gst_video::VideoPackFlags::empty(),
        &pixel.repeat(width),
        (pixel.len() * width) as i32,
        &mut planes,
        &strides,
        gst_video::VideoChromaSite::empty(),
        0,
        width as i32,
    );
    for (plane, row) in (0..n_planes).zip(&rows) {
        if let Ok(bytes) = frame.plane_data_mut(plane) {
            for target in bytes.chunks_mut(row.len().max(1)) {
                target.copy_from_slice(&row[..target.len()]);
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
    const FORMATS: [VideoFormat; 25] = [
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
        VideoFormat::Bgra64Le,
        VideoFormat::P012Le,
        VideoFormat::P016Le,
        VideoFormat::Nv1210le40,
        VideoFormat::Nv1210le32,
        VideoFormat::Nv1610le32,
        VideoFormat::Gray10Le32,
        VideoFormat::I42010le,
        VideoFormat::V308,
        VideoFormat::Y210,
        VideoFormat::Y212Le,
        VideoFormat::Y410,
        VideoFormat::Y412Le,
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

    #[test]
    fn black_is_what_gstreamer_unpacks_as_black() {
        for format in FORMATS {
            let frame = black(&info(format, 24, 4));
            let format = frame.format_info();
            let unpacked = gst_video::VideoFormatInfo::from_format(format.unpack_format());
            let depth = unpacked.depth()[0] as usize;
            let planes = (0..frame.n_planes()).map(|plane| frame.plane_data(plane).unwrap());
            let planes: Vec<_> = planes.collect();
            // gstreamer-rs takes chroma planes to have as many rows as luma.
            for y in [0, 1] {
                let mut pixels = vec![0; 24 * 4 * depth / 8];
                let flags = gst_video::VideoPackFlags::TRUNCATE_RANGE;
                let strides = &frame.plane_stride()[..planes.len()];
                format.unpack(flags, &mut pixels, &planes, strides, 0, y, 24);
                for pixel in pixels.chunks_exact(4 * depth / 8) {
                    let high = |place: usize| pixel[place * depth / 8 + depth / 8 - 1];
                    // The highest byte of each sample, after alpha.
                    let expected = match (format.is_yuv(), format.is_gray()) {
                        (true, _) => [16, 128, 128],
                        (_, true) => [0, 128, 128],
                        _ => [0; 3],
                    };
                    assert_eq!([1, 2, 3].map(high), expected, "{:?}", format.format());
                    let is_opaque = !format.has_alpha() || high(0) >= 0xc0;
                    assert!(is_opaque, "{:?}", format.format());
                }
            }
        }
    }
}
