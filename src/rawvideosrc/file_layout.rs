// SPDX-License-Identifier: MPL-2.0
//! Chooses the layout of the frames in a raw file, which does not say it itself.
//!
//! Other programs write rows without padding; GStreamer rounds them up to four bytes. If the
//! two layouts differ, the property `frame-size` decides, else the size of the file, else the
//! pictures: neighbouring rows are similar in the right layout.

use super::{
    errors::SetupError,
    reader::{open::Opened, scan::read_some_at},
    settings::Settings,
};
use crate::layout::{Layout, LayoutError};

/// The most rows that are compared with the rows below them.
const ROWS_COMPARED: usize = 256;

#[derive(Debug, Clone, Copy)]
pub enum Data<'a> {
    /// A file of its final size.
    Whole {
        opened: &'a Opened,
        start_bytes: u64,
    },
    /// A pipe, or a file that may grow.
    Open,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileLayout {
    pub layout: Layout,
    /// The text of a warning if the layout may be the wrong one.
    pub doubt: Option<String>,
}

impl FileLayout {
    pub fn certain(layout: Layout) -> Self {
        Self {
            layout,
            doubt: None,
        }
    }
}

/// Chooses by the properties, else by `data`.
pub fn choose(
    info: &gst_video::VideoInfo,
    settings: &Settings,
    data: Data<'_>,
) -> Result<FileLayout, SetupError> {
    let (strides, offsets) = (settings.strides(), settings.offsets());
    if !strides.is_empty() || !offsets.is_empty() {
        let frame_size = settings.frame_size as usize;
        let layout = Layout::custom(info, &strides, &offsets, frame_size);
        return Ok(FileLayout::certain(refuse(info, layout)?));
    }
    let (stock, packed) = (Layout::of_info(info), Layout::packed(info));
    if settings.frame_size > 0 {
        let layout = by_frame_size(&stock, &packed, settings.frame_size as usize);
        return Ok(FileLayout::certain(refuse(info, layout)?));
    }
    if stock == packed {
        return Ok(FileLayout::certain(packed));
    }
    Ok(by_data(&stock, &packed, settings, data))
}

fn refuse(
    info: &gst_video::VideoInfo,
    layout: Result<Layout, LayoutError>,
) -> Result<Layout, SetupError> {
    layout.map_err(|source| SetupError::Layout {
        format: info.format().to_str().to_string(),
        source,
    })
}

/// If GStreamer's rounded rows do not fit into the frame, its rows have no padding.
fn by_frame_size(
    stock: &Layout,
    packed: &Layout,
    size_bytes: usize,
) -> Result<Layout, LayoutError> {
    let planes = if size_bytes < stock.size_bytes {
        packed
    } else {
        stock
    };
    if size_bytes < planes.size_bytes {
        return Err(LayoutError::PastEnd {
            plane: planes.n_planes.saturating_sub(1),
            end_bytes: planes.size_bytes,
            size_bytes,
        });
    }
    Ok(Layout {
        size_bytes,
        ..*planes
    })
}

fn by_data(stock: &Layout, packed: &Layout, settings: &Settings, data: Data<'_>) -> FileLayout {
    let location = settings.location.as_deref().unwrap_or_default();
    let sizes = format!(
        "{} bytes a frame if rows follow each other without padding, {} if they are rounded up to four bytes as GStreamer does",
        packed.size_bytes, stock.size_bytes
    );
    let doubtful = |layout: &Layout, why: &str| {
        let (taken, other) = match layout == packed {
            true => ("without padding", stock),
            false => ("rounded up", packed),
        };
        FileLayout {
            layout: *layout,
            doubt: Some(format!(
                "\"{location}\" {why}: {sizes}; taken for rows {taken}; set frame-size={} to have it the other way, frame-size={} to keep it so",
                other.size_bytes, layout.size_bytes
            )),
        }
    };
    let Data::Whole {
        opened,
        start_bytes,
    } = data
    else {
        return doubtful(
            packed,
            "does not tell by its size how its rows are laid out",
        );
    };
    let data_bytes = opened.len_bytes.saturating_sub(start_bytes);
    let fits =
        |layout: &Layout| data_bytes > 0 && data_bytes.is_multiple_of(layout.size_bytes as u64);
    let why = match (fits(stock), fits(packed)) {
        (true, false) => return FileLayout::certain(*stock),
        (false, true) => return FileLayout::certain(*packed),
        (true, true) => "holds a whole number of frames in either of two ways",
        (false, false) => "holds no whole number of frames in either of two ways",
    };
    let layout = match looks_padded(opened, start_bytes, stock, packed) {
        true => stock,
        false => packed,
    };
    doubtful(layout, why)
}

/// Whether neighbouring rows differ clearly less, by more than a fifth, in the padded layout.
fn looks_padded(opened: &Opened, start_bytes: u64, stock: &Layout, packed: &Layout) -> bool {
    let (padded_stride, stride) = (stock.planes[0].stride_bytes, packed.planes[0].stride_bytes);
    let rows = packed.planes[0].rows.min(ROWS_COMPARED);
    if padded_stride == stride || rows < 2 {
        return false;
    }
    let mut bytes = vec![0; padded_stride * rows];
    let (mut padded_steps, mut steps) = (0, 0);
    // The first picture may be black, so the middle of the file is compared, too.
    let data_bytes = opened.len_bytes.saturating_sub(start_bytes);
    for at in [0, data_bytes / 2] {
        let Ok(len) = read_some_at(&opened.file, &mut bytes, start_bytes + at) else {
            return false;
        };
        padded_steps += step_between_rows(&bytes[..len], padded_stride);
        steps += step_between_rows(&bytes[..len], stride);
    }
    padded_steps * 5 < steps * 4
}

/// The sum of the differences between each byte and the byte one row below.
fn step_between_rows(bytes: &[u8], stride: usize) -> u64 {
    let below = bytes.iter().skip(stride);
    let steps = bytes
        .iter()
        .zip(below)
        .map(|(a, b)| u64::from(a.abs_diff(*b)));
    steps.sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{layout::samples, rawvideosrc::reader::open::Opening};
    use std::io::Write;

    fn opened(bytes: &[u8]) -> Opened {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(bytes).unwrap();
        match Opened::open(file.path()).unwrap() {
            Opening::File(opened) => opened,
            Opening::Stream(_) => unreachable!(),
        }
    }

    fn chosen(info: &gst_video::VideoInfo, frame_size: u32, bytes: &[u8]) -> (usize, bool) {
        let settings = Settings {
            frame_size,
            ..Settings::default()
        };
        let opened = opened(bytes);
        let data = Data::Whole {
            opened: &opened,
            start_bytes: 0,
        };
        let chosen = choose(info, &settings, data).unwrap();
        let stride = chosen.layout.planes[0].stride_bytes;
        (stride, chosen.doubt.is_some())
    }

    /// `rows` rows of a picture that changes little from row to row.
    fn picture(rows: usize, row_bytes: usize, stride: usize) -> Vec<u8> {
        let mut bytes = vec![0; rows * stride];
        for (row, to) in bytes.chunks_exact_mut(stride).enumerate() {
            for (x, byte) in to[..row_bytes].iter_mut().enumerate() {
                *byte = (x * x * 7 % 251) as u8 ^ (row / 9) as u8;
            }
        }
        bytes
    }

    #[test]
    fn the_size_of_a_file_tells_how_rows_are_laid_out() {
        gst::init().unwrap();
        // 99 bytes in a row, 100 with padding; 17 rows.
        let info = samples::info(gst_video::VideoFormat::Bgr, 33, 17);
        assert_eq!(chosen(&info, 0, &[7; 1700 * 3]), (100, false));
        assert_eq!(chosen(&info, 0, &[7; 1683 * 3]), (99, false));
        assert_eq!(chosen(&info, 0, &[7; 1683 * 3 - 5]), (99, true));
        assert_eq!(chosen(&info, 0, &[7; 1683 * 1700]), (99, true));
    }

    #[test]
    fn the_picture_tells_where_the_size_does_not() {
        gst::init().unwrap();
        let info = samples::info(gst_video::VideoFormat::Bgr, 33, 17);
        for stride in [99, 100] {
            let bytes = picture(3 * 17, 99, stride);
            let cut = &bytes[..bytes.len() - 5];
            assert_eq!(chosen(&info, 0, cut), (stride, true), "{stride}");
        }
        // 46 frames of 720 bytes are as long as 45 of 736.
        let info = samples::info(gst_video::VideoFormat::Gray8, 90, 8);
        let bytes = picture(46 * 8, 90, 90);
        assert_eq!(bytes.len(), 45 * 736);
        assert_eq!(chosen(&info, 0, &bytes), (90, true));
        assert_eq!(chosen(&info, 0, &picture(45 * 8, 90, 92)), (92, true));
    }

    #[test]
    fn frame_size_tells_beyond_doubt() {
        gst::init().unwrap();
        let info = samples::info(gst_video::VideoFormat::Bgr, 33, 17);
        assert_eq!(chosen(&info, 1683, &[7; 1700 * 3]), (99, false));
        assert_eq!(chosen(&info, 1690, &[7; 1690 * 3]), (99, false));
        assert_eq!(chosen(&info, 1700, &[7; 1683 * 3]), (100, false));
        assert_eq!(chosen(&info, 2000, &[7; 2000 * 3]), (100, false));
        let settings = Settings {
            frame_size: 1682,
            ..Settings::default()
        };
        assert!(choose(&info, &settings, Data::Open).is_err());
    }
}
