// SPDX-License-Identifier: MPL-2.0
//! The built-in test pattern: colour bars, a moving box and the frame number in large digits,
//! in every format that GstVideoInfo can describe.
//!
//! A picture has only a few different lines. Each of them is painted once in the format that
//! GStreamer's pack function takes, packed into a scratch row, and copied to all rows that
//! show it. So each byte of the buffer is written once and none is read back, because reading
//! from framebuffer memory is slow.

use super::reader::{Destination, FrameSource, Outcome, ReadError};
use crate::layout::{Layout, MAX_PLANES};
use std::ops::Range;

type Rgb = [u8; 3];

const WHITE: Rgb = [255, 255, 255];
const BLACK: Rgb = [0, 0, 0];
const BOX: Rgb = [255, 96, 0];
const BARS: [Rgb; 8] = [
    [235, 235, 235],
    [235, 235, 16],
    [16, 235, 235],
    [16, 235, 16],
    [235, 16, 235],
    [235, 16, 16],
    [16, 16, 235],
    [40, 40, 40],
];

/// The digits 0 to 9 in five by seven dots, the leftmost dot in bit 4.
const FIGURES: [[u8; 7]; 10] = [
    [0x0E, 0x11, 0x13, 0x15, 0x19, 0x11, 0x0E],
    [0x04, 0x0C, 0x04, 0x04, 0x04, 0x04, 0x0E],
    [0x0E, 0x11, 0x01, 0x02, 0x04, 0x08, 0x1F],
    [0x1F, 0x02, 0x04, 0x02, 0x01, 0x11, 0x0E],
    [0x02, 0x06, 0x0A, 0x12, 0x1F, 0x02, 0x02],
    [0x1F, 0x10, 0x1E, 0x01, 0x01, 0x11, 0x0E],
    [0x06, 0x08, 0x10, 0x1E, 0x11, 0x11, 0x0E],
    [0x1F, 0x01, 0x02, 0x04, 0x08, 0x08, 0x08],
    [0x0E, 0x11, 0x11, 0x0E, 0x11, 0x11, 0x0E],
    [0x0E, 0x11, 0x11, 0x0F, 0x01, 0x02, 0x0C],
];
const FIGURE_DOTS: usize = 5;
const FIGURE_ROWS: usize = 7;
/// The least number of digits, so that the number keeps its place while it grows.
const LEAST_FIGURES: usize = 6;
const BOX_STEP_PX: u64 = 4;

/// The largest picture that is drawn, in bytes: 11,585 by 11,585 pixels in BGRx. Several
/// pictures are in memory at a time, and no display can show larger ones.
pub const MAX_BYTES: u64 = 512 << 20;

/// The geometry of a picture, in pixels.
#[derive(Debug)]
struct Picture {
    width: usize,
    height: usize,
    moving_box: (Range<usize>, Range<usize>),
    figures: Vec<u8>,
    /// Width and height of one dot; 0 if the picture is too small for a number.
    dot_px: usize,
    label: (Range<usize>, Range<usize>),
}

/// Lines of the same kind look the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Kind {
    in_box: bool,
    label: Label,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Label {
    Outside,
    Margin,
    Dots(usize),
}

impl Picture {
    fn new(frame: u64, width: usize, height: usize) -> Self {
        let figures: Vec<u8> = format!("{frame:0LEAST_FIGURES$}")
            .bytes()
            .map(|figure| figure - b'0')
            .collect();
        // One column between digits, and a margin of one dot around the number.
        let dots_across = figures.len() * (FIGURE_DOTS + 1) + 1;
        let dots_down = FIGURE_ROWS + 2;
        let dot_px = (width * 3 / 4 / dots_across).min(height / 3 / dots_down);
        let (label_width, label_height) = (dots_across * dot_px, dots_down * dot_px);
        let left = (width - label_width) / 2;
        let top = (height - label_height) / 2;
        let side = (height.min(width) / 6).max(1);
        Self {
            width,
            height,
            moving_box: (
                bounce(frame, width - side, side),
                bounce(frame / 2, height - side, side),
            ),
            figures,
            dot_px,
            label: (left..left + label_width, top..top + label_height),
        }
    }

    fn kind(&self, y: usize) -> Kind {
        let label = if !self.label.1.contains(&y) {
            Label::Outside
        } else {
            match ((y - self.label.1.start) / self.dot_px).checked_sub(1) {
                Some(row) if row < FIGURE_ROWS => Label::Dots(row),
                _ => Label::Margin,
            }
        };
        Kind {
            in_box: self.moving_box.1.contains(&y),
            label,
        }
    }

    /// Paints a line of that kind. Later fills cover earlier ones.
    fn paint(&self, kind: Kind, mut fill: impl FnMut(Range<usize>, Rgb)) {
        for (index, colour) in BARS.iter().enumerate() {
            let edge = |index| index * self.width / BARS.len();
            fill(edge(index)..edge(index + 1), *colour);
        }
        if kind.in_box {
            fill(self.moving_box.0.clone(), BOX);
        }
        if kind.label == Label::Outside {
            return;
        }
        fill(self.label.0.clone(), BLACK);
        let Label::Dots(row) = kind.label else { return };
        for (place, figure) in self.figures.iter().enumerate() {
            let dots = FIGURES[usize::from(*figure)][row];
            for dot in (0..FIGURE_DOTS).filter(|dot| dots >> (FIGURE_DOTS - 1 - dot) & 1 == 1) {
                let dots_before = 1 + place * (FIGURE_DOTS + 1) + dot;
                let left = self.label.0.start + dots_before * self.dot_px;
                fill(left..left + self.dot_px, WHITE);
            }
        }
    }
}

/// The range of a box of size `side` that moves back and forth over `room` pixels.
fn bounce(frame: u64, room: usize, side: usize) -> Range<usize> {
    let room = room as u64;
    let phase = frame.wrapping_mul(BOX_STEP_PX) % (2 * room).max(1);
    let start = if phase > room {
        2 * room - phase
    } else {
        phase
    } as usize;
    start..start + side
}

#[derive(Debug, Clone)]
struct PackedLine {
    kind: Kind,
    planes: [Vec<u8>; MAX_PLANES],
}

pub struct Pattern {
    info: gst_video::VideoInfo,
    layout: Layout,
    /// Vertical subsampling: row `r` of a plane shows line `r << shift` of the picture.
    row_shifts: [u32; MAX_PLANES],
    unpacked: Vec<u8>,
    /// The lines of the current frame. The next frame reuses their memory.
    lines: Vec<PackedLine>,
    /// For tiled formats, in which the rows of a plane are not lines of the picture.
    converter: Option<TiledConverter>,
}

/// Draws into an untiled format, and lets GStreamer's converter make the tiles of it.
struct TiledConverter {
    plain: Box<Pattern>,
    plain_info: gst_video::VideoInfo,
    info: gst_video::VideoInfo,
    converter: gst_video::VideoConverter,
}

impl TiledConverter {
    fn new(info: &gst_video::VideoInfo) -> Result<Self, ReadError> {
        let plain_format = info.format_info().unpack_format();
        let plain_info = gst_video::VideoInfo::builder(plain_format, info.width(), info.height())
            .colorimetry(&info.colorimetry())
            .fps(info.fps())
            .par(info.par())
            .interlace_mode(info.interlace_mode())
            .build()
            .map_err(draw_error)?;
        let converter =
            gst_video::VideoConverter::new(&plain_info, info, None).map_err(draw_error)?;
        Ok(Self {
            plain: Box::new(Pattern::new(&plain_info)?),
            plain_info,
            info: info.clone(),
            converter,
        })
    }

    fn draw(&mut self, n: u64, destination: &mut Destination<'_>) -> Result<(), ReadError> {
        let mut from = vec![0; self.plain_info.size()];
        if let Some(mut plain) = Destination::whole(&mut from, Layout::of_info(&self.plain_info)) {
            self.plain.draw(n, &mut plain)?;
        }
        let from = gst::Buffer::from_mut_slice(from);
        // Zeroed, because the converter writes nothing where a tile reaches past the picture.
        let mut to = gst::Buffer::from_mut_slice(vec![0; self.info.size()]);
        let whole = to.get_mut().ok_or_else(|| draw_error("shared buffer"))?;
        let from = gst_video::VideoFrameRef::from_buffer_ref_readable(&from, &self.plain_info)
            .map_err(draw_error)?;
        let mut tiles = gst_video::VideoFrameRef::from_buffer_ref_writable(whole, &self.info)
            .map_err(draw_error)?;
        self.converter.frame_ref(&from, &mut tiles);
        drop(tiles);
        let map = whole.map_readable().map_err(draw_error)?;
        for (plane, &start) in self.info.offset().iter().enumerate() {
            // The stride of a tiled plane is a number of tiles, which the plane_data of a
            // VideoFrame takes for bytes. So the offsets of the planes are used instead.
            let bytes = map.get(start..).unwrap_or_default();
            let row = destination.row_mut(plane, 0);
            let len = row.len().min(bytes.len());
            row[..len].copy_from_slice(&bytes[..len]);
        }
        Ok(())
    }
}

/// Bytes of the largest picture that must be in memory to draw one in this format.
pub fn needed_bytes(info: &gst_video::VideoInfo) -> u64 {
    let own_bytes = info.size() as u64;
    if !info.format_info().is_tiled() {
        return own_bytes;
    }
    // A tiled picture is first drawn in an untiled format with four components a pixel.
    let plain = gst_video::VideoFormatInfo::from_format(info.format_info().unpack_format());
    let pixel_bytes = plain
        .pixel_stride()
        .first()
        .map_or(4, |bytes| *bytes as u64);
    own_bytes.max(u64::from(info.width()) * u64::from(info.height()) * pixel_bytes)
}

fn draw_error(why: impl std::fmt::Display) -> ReadError {
    ReadError::Draw(why.to_string())
}

/// The picture of frame `n` in `info`'s own layout, for tests to compare with.
pub fn render(n: u64, info: &gst_video::VideoInfo) -> Result<Vec<u8>, ReadError> {
    let mut bytes = vec![0; info.size()];
    let mut destination = Destination::whole(&mut bytes, Layout::of_info(info))
        .ok_or_else(|| draw_error("the planes end past the frame"))?;
    Pattern::new(info)?.draw(n, &mut destination)?;
    Ok(bytes)
}

/// A colour as GStreamer's pack functions take it: alpha, then red, green and blue or luma
/// and chroma, each of 16 bits if `deep`, else of 8 bits.
fn unpacked_pixel(info: &gst_video::VideoInfo, colour: Rgb, deep: bool) -> [u8; 8] {
    let [red, green, blue] = colour.map(|level| f64::from(level) / 255.0);
    let unpack_format = info.format_info().unpack_format();
    let is_rgb = gst_video::VideoFormatInfo::from_format(unpack_format).is_rgb();
    // Levels of 8 bits. Those of 16 bits are 256 times as high, or 257 times in full range.
    let (levels, full) = if is_rgb {
        ([red * 255.0, green * 255.0, blue * 255.0], true)
    } else {
        let colorimetry = info.colorimetry();
        let (kr, kb) = colorimetry.matrix().kr_kb().unwrap_or((0.299, 0.114));
        let luma = kr * red + (1.0 - kr - kb) * green + kb * blue;
        let cb = (blue - luma) / (2.0 * (1.0 - kb));
        let cr = (red - luma) / (2.0 * (1.0 - kr));
        if colorimetry.range() == gst_video::VideoColorRange::Range0_255 {
            let levels = [luma * 255.0, 128.0 + cb * 255.0, 128.0 + cr * 255.0];
            (levels, true)
        } else {
            let levels = [16.0 + luma * 219.0, 128.0 + cb * 224.0, 128.0 + cr * 224.0];
            (levels, false)
        }
    };
    let mut pixel = [0; 8];
    if deep {
        let scale = if full { 257.0 } else { 256.0 };
        pixel[..2].copy_from_slice(&u16::MAX.to_ne_bytes());
        for (place, level) in pixel[2..].chunks_exact_mut(2).zip(levels) {
            place.copy_from_slice(&((level * scale).round() as u16).to_ne_bytes());
        }
    } else {
        pixel[0] = u8::MAX;
        for (place, level) in pixel[1..4].iter_mut().zip(levels) {
            *place = level.round() as u8;
        }
    }
    pixel
}

impl Pattern {
    pub fn new(info: &gst_video::VideoInfo) -> Result<Self, ReadError> {
        let format = info.format_info();
        let mut row_shifts = [0; MAX_PLANES];
        for component in 0..info.n_components() as usize {
            let plane = info.comp_plane(component as u8) as usize;
            row_shifts[plane] = format.h_sub()[component];
        }
        let converter = if format.is_tiled() {
            Some(TiledConverter::new(info)?)
        } else {
            None
        };
        Ok(Self {
            layout: Layout::of_info(info),
            row_shifts,
            unpacked: Vec::new(),
            lines: Vec::new(),
            converter,
            info: info.clone(),
        })
    }

    fn draw(&mut self, n: u64, destination: &mut Destination<'_>) -> Result<(), ReadError> {
        if let Some(converter) = &mut self.converter {
            return converter.draw(n, destination);
        }
        let picture = Picture::new(n, self.info.width() as usize, self.info.height() as usize);
        let mut used = 0;
        for plane in 0..self.layout.n_planes {
            let palette = self.info.format_info().has_palette() && plane == 1;
            let mut last: Option<(Kind, usize)> = None;
            for row in 0..self.layout.planes[plane].rows {
                let y = if palette {
                    0
                } else {
                    (row << self.row_shifts[plane]).min(picture.height - 1)
                };
                let kind = picture.kind(y);
                let index = match last {
                    Some((known, index)) if known == kind => index,
                    _ => self.line(&picture, kind, &mut used),
                };
                last = Some((kind, index));
                let start = if palette { row * 4 } else { 0 };
                let to = destination.row_mut(plane, row);
                to.copy_from_slice(&self.lines[index].planes[plane][start..start + to.len()]);
            }
        }
        Ok(())
    }

    /// The index of the packed line of that kind. It is packed if this frame has none yet.
    fn line(&mut self, picture: &Picture, kind: Kind, used: &mut usize) -> usize {
        if let Some(index) = self.lines[..*used]
            .iter()
            .position(|line| line.kind == kind)
        {
            return index;
        }
        if *used == self.lines.len() {
            self.lines.push(PackedLine {
                kind,
                planes: Default::default(),
            });
        }
        self.lines[*used].kind = kind;
        self.pack(picture, *used);
        *used += 1;
        *used - 1
    }

    fn pack(&mut self, picture: &Picture, index: usize) {
        let format = self.info.format_info();
        let deep = matches!(
            format.unpack_format(),
            gst_video::VideoFormat::Argb64 | gst_video::VideoFormat::Ayuv64
        );
        let pixel_bytes = if deep { 8 } else { 4 };
        // Pack functions work on groups of pixels, and may read or write all of the group in
        // which the line ends.
        self.unpacked.resize((picture.width + 64) * pixel_bytes, 0);
        let line = &mut self.lines[index];
        let unpacked = &mut self.unpacked;
        let info = &self.info;
        picture.paint(line.kind, |range, colour| {
            let pixel = unpacked_pixel(info, colour, deep);
            for place in unpacked[range.start * pixel_bytes..range.end * pixel_bytes]
                .chunks_exact_mut(pixel_bytes)
            {
                place.copy_from_slice(&pixel[..pixel_bytes]);
            }
        });
        let stride_bytes = picture.width * 8 + 2048;
        let n_planes = self.layout.n_planes;
        let mut planes = line.planes.each_mut().map(|bytes| {
            bytes.resize(stride_bytes, 0);
            bytes.as_mut_slice()
        });
        format.pack(
            gst_video::VideoPackFlags::empty(),
            unpacked,
            unpacked.len() as i32,
            &mut planes[..n_planes],
            &[stride_bytes as i32; MAX_PLANES][..n_planes],
            self.info.chroma_site(),
            0,
            picture.width as i32,
        );
    }
}

impl FrameSource for Pattern {
    fn may_hang(&self) -> bool {
        false
    }

    fn read(&mut self, n: u64, destination: &mut Destination<'_>) -> Result<Outcome, ReadError> {
        self.draw(n, destination)?;
        Ok(Outcome::Frame)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::samples::{info, naive};

    #[test]
    fn every_format_and_size_can_be_drawn() {
        gst::init().unwrap();
        for format in gst_video::VideoFormat::iter_raw() {
            for (width, height) in [(1, 1), (3, 2), (33, 17), (320, 240), (641, 363)] {
                render(7, &info(format, width, height)).unwrap();
            }
        }
    }

    #[test]
    fn every_format_shows_the_colours_that_bgra_shows() {
        gst::init().unwrap();
        let (width, height) = (320, 240);
        let bgra = info(gst_video::VideoFormat::Argb, width, height);
        let expected = render(1234, &bgra).unwrap();
        for format in gst_video::VideoFormat::iter_raw() {
            let info = info(format, width, height);
            let got = to_argb(&info, render(1234, &info).unwrap(), &bgra);
            let gray = info.is_gray();
            let mut far = 0;
            for (a, b) in expected.chunks(4).zip(got.chunks(4)) {
                let luma = |p: &[u8]| {
                    (f64::from(p[1]) * 0.299 + f64::from(p[2]) * 0.587 + f64::from(p[3]) * 0.114)
                        as i32
                };
                let difference = if gray {
                    (luma(a) - luma(b)).abs()
                } else {
                    (1..4)
                        .map(|i| (i32::from(a[i]) - i32::from(b[i])).abs())
                        .max()
                        .unwrap()
                };
                far += usize::from(difference > 24);
            }
            // Subsampled chroma blurs edges, with ORC's arm64 code for 4:1:0 half as many pixels
            // again as elsewhere. The palette of RGB8P has 216 colours of its own.
            let limit = if format == gst_video::VideoFormat::Rgb8p {
                expected.len()
            } else if info.format_info().w_sub().get(1) > Some(&1) {
                expected.len() / 4 / 7
            } else {
                expected.len() / 4 / 12
            };
            assert!(far <= limit, "{format:?}: {far} pixels differ");
        }
    }

    fn to_argb(
        info: &gst_video::VideoInfo,
        bytes: Vec<u8>,
        argb: &gst_video::VideoInfo,
    ) -> Vec<u8> {
        let from = gst::Buffer::from_mut_slice(bytes);
        let mut to = gst::Buffer::with_size(argb.size()).unwrap();
        let from = gst_video::VideoFrameRef::from_buffer_ref_readable(&from, info).unwrap();
        {
            let mut to =
                gst_video::VideoFrameRef::from_buffer_ref_writable(to.get_mut().unwrap(), argb)
                    .unwrap();
            gst_video::VideoConverter::new(info, argb, None)
                .unwrap()
                .frame_ref(&from, &mut to);
        }
        to.map_readable().unwrap().to_vec()
    }

    #[test]
    fn padding_stays_as_it_was() {
        gst::init().unwrap();
        let info = info(gst_video::VideoFormat::Nv12, 33, 17);
        let layout = Layout::custom(&info, &[64, 64], &[5, 2000], 4000).unwrap();
        let mut bytes = vec![0xEE; 4000];
        let mut destination = Destination::whole(&mut bytes, layout).unwrap();
        let mut pattern = Pattern::new(&info).unwrap();
        pattern.draw(3, &mut destination).unwrap();
        let stock = render(3, &info).unwrap();
        let stock_layout = Layout::of_info(&info);
        assert_eq!(bytes, naive(&stock, &stock_layout, &layout));
    }

    #[test]
    fn frames_differ_and_repeat() {
        gst::init().unwrap();
        let info = info(gst_video::VideoFormat::Bgrx, 64, 48);
        assert_ne!(render(0, &info).unwrap(), render(1, &info).unwrap());
        let mut pattern = Pattern::new(&info).unwrap();
        let layout = Layout::of_info(&info);
        for n in [5, 900, 5, u64::MAX] {
            let mut bytes = vec![0; info.size()];
            let mut destination = Destination::whole(&mut bytes, layout).unwrap();
            pattern.draw(n, &mut destination).unwrap();
            assert_eq!(bytes, render(n, &info).unwrap());
        }
    }

    #[test]
    fn the_number_can_be_read() {
        // Reads the digits of frame 42 back dot by dot.
        gst::init().unwrap();
        let (width, height) = (640usize, 480usize);
        let bytes = render(42, &info(gst_video::VideoFormat::Gray8, 640, 480)).unwrap();
        let picture = Picture::new(42, width, height);
        let mut number = 0;
        for place in 0..picture.figures.len() {
            let mut dots = [0u8; FIGURE_ROWS];
            for (row, dots) in dots.iter_mut().enumerate() {
                for dot in 0..FIGURE_DOTS {
                    let across = 1 + place * (FIGURE_DOTS + 1) + dot;
                    let x = picture.label.0.start + across * picture.dot_px;
                    let y = picture.label.1.start + (row + 1) * picture.dot_px;
                    *dots = *dots << 1 | u8::from(bytes[y * width + x] > 128);
                }
            }
            let figure = FIGURES.iter().position(|figure| *figure == dots).unwrap();
            number = number * 10 + figure;
        }
        assert_eq!(number, 42);
    }
}
