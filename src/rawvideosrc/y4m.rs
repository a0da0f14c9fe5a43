// SPDX-License-Identifier: MPL-2.0
//! YUV4MPEG2: the header of the stream and those of its frames. Pure parsing.

use gst_video::{VideoFormat, VideoInterlaceMode};

/// What a stream begins with.
pub const MAGIC: &[u8] = b"YUV4MPEG2";
/// What a frame begins with, when it has no parameters.
pub const FRAME: &[u8] = b"FRAME\n";
/// Longer headers than this are not searched for their end.
pub const MAX_HEADER_BYTES: usize = 4096;

/// What a header says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// Up to and with the newline.
    pub len_bytes: usize,
    /// Of the picture.
    pub format: VideoFormat,
    /// Pixels across.
    pub width: i32,
    /// Pixels down.
    pub height: i32,
    /// Frames a second; none if not known.
    pub framerate: Option<(i32, i32)>,
    /// Width to height of a pixel; none if not known.
    pub pixel_aspect_ratio: Option<(i32, i32)>,
    /// Progressive unless said.
    pub interlace_mode: VideoInterlaceMode,
    /// For interlaced pictures: `Some(true)` if the top field comes first.
    pub top_field_first: Option<bool>,
    /// As caps have it.
    pub chroma_site: Option<&'static str>,
    /// Levels from 0 to 255, not from 16.
    pub full_range: bool,
}

/// Why a header cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Y4mError {
    /// It goes on past the bytes given.
    #[error("the header has no end within {0} bytes")]
    Unfinished(usize),
    /// A parameter that makes no sense.
    #[error("\"{0}\" in the header makes no sense")]
    Parameter(String),
    /// A colour space that GStreamer has no format for.
    #[error("there is no GStreamer format for colour space \"{0}\": convert the file")]
    Colour(String),
    /// Width or height is missing.
    #[error("the header does not give width and height")]
    NoSize,
    /// Something else where a frame should begin.
    #[error("no FRAME at byte {0}")]
    NoFrame(u64),
}

/// Whether the bytes are the beginning of a YUV4MPEG2 stream.
pub fn is_y4m(bytes: &[u8]) -> bool {
    bytes
        .strip_prefix(MAGIC)
        .is_some_and(|rest| matches!(rest.first(), Some(b' ' | b'\n')))
}

impl Header {
    /// Parses the header at the beginning of `bytes`.
    pub fn parse(bytes: &[u8]) -> Result<Self, Y4mError> {
        let end = bytes
            .iter()
            .take(MAX_HEADER_BYTES)
            .position(|byte| *byte == b'\n')
            .ok_or(Y4mError::Unfinished(bytes.len().min(MAX_HEADER_BYTES)))?;
        let mut header = Self {
            len_bytes: end + 1,
            format: VideoFormat::I420,
            width: 0,
            height: 0,
            framerate: None,
            pixel_aspect_ratio: None,
            interlace_mode: VideoInterlaceMode::Progressive,
            top_field_first: None,
            chroma_site: None,
            full_range: false,
        };
        let words = bytes[..end].split(|byte| *byte == b' ').skip(1);
        for word in words.filter(|word| !word.is_empty()) {
            let text = String::from_utf8_lossy(word).into_owned();
            header
                .take_parameter(&text)
                .ok_or(Y4mError::Parameter(text.clone()))??;
        }
        if header.width <= 0 || header.height <= 0 {
            return Err(Y4mError::NoSize);
        }
        Ok(header)
    }

    /// None if the value makes no sense.
    fn take_parameter(&mut self, text: &str) -> Option<Result<(), Y4mError>> {
        let mut letters = text.chars();
        let name = letters.next()?;
        let value = letters.as_str();
        match name {
            'W' => self.width = value.parse().ok()?,
            'H' => self.height = value.parse().ok()?,
            'F' => self.framerate = ratio(value)?,
            'A' => self.pixel_aspect_ratio = ratio(value)?,
            'I' => {
                (self.interlace_mode, self.top_field_first) = match value {
                    "p" | "?" => (VideoInterlaceMode::Progressive, None),
                    "t" => (VideoInterlaceMode::Interleaved, Some(true)),
                    "b" => (VideoInterlaceMode::Interleaved, Some(false)),
                    "m" => (VideoInterlaceMode::Mixed, None),
                    _ => return None,
                }
            }
            'C' => match colour(value) {
                Some((format, site)) => (self.format, self.chroma_site) = (format, site),
                None => return Some(Err(Y4mError::Colour(value.to_owned()))),
            },
            'X' if value == "COLORRANGE=FULL" => self.full_range = true,
            // Comments, and parameters of the future.
            _ => {}
        }
        Some(Ok(()))
    }
}

/// `Some(None)` for 0:0, which says that it is not known.
fn ratio(value: &str) -> Option<Option<(i32, i32)>> {
    let (numer, denom) = value.split_once(':')?;
    let (numer, denom): (i32, i32) = (numer.parse().ok()?, denom.parse().ok()?);
    match (numer, denom) {
        (0, 0) => Some(None),
        (1.., 1..) => Some(Some((numer, denom))),
        _ => None,
    }
}

fn colour(value: &str) -> Option<(VideoFormat, Option<&'static str>)> {
    Some(match value {
        "420jpeg" => (VideoFormat::I420, Some("jpeg")),
        "420mpeg2" | "420" => (VideoFormat::I420, Some("mpeg2")),
        "420paldv" => (VideoFormat::I420, Some("dv")),
        "411" => (VideoFormat::Y41b, None),
        "422" => (VideoFormat::Y42b, None),
        "444" => (VideoFormat::Y444, None),
        "mono" => (VideoFormat::Gray8, None),
        "mono16" => (VideoFormat::Gray16Le, None),
        "420p10" => (VideoFormat::I42010le, None),
        "422p10" => (VideoFormat::I42210le, None),
        "444p10" => (VideoFormat::Y44410le, None),
        "420p12" => (VideoFormat::I42012le, None),
        "422p12" => (VideoFormat::I42212le, None),
        "444p12" => (VideoFormat::Y44412le, None),
        "444p16" => (VideoFormat::Y44416le, None),
        _ => return None,
    })
}

/// Length of the frame header at the beginning of `bytes`, newline included.
/// None if there is no frame; `Unfinished` if the bytes end too early.
pub fn frame_header_bytes(bytes: &[u8]) -> Result<Option<usize>, Y4mError> {
    let word = &FRAME[..FRAME.len() - 1];
    let seen = bytes.len().min(word.len());
    if bytes[..seen] != word[..seen] {
        return Ok(None);
    }
    match bytes.get(word.len()) {
        None => return Err(Y4mError::Unfinished(bytes.len())),
        Some(b' ' | b'\n') => {}
        Some(_) => return Ok(None),
    }
    bytes
        .iter()
        .take(MAX_HEADER_BYTES)
        .position(|byte| *byte == b'\n')
        .map(|end| Some(end + 1))
        .ok_or(Y4mError::Unfinished(bytes.len()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn ffmpegs_header_is_understood() {
        let bytes = b"YUV4MPEG2 W352 H288 F30000:1001 It A128:117 C420mpeg2 XYSCSS=420MPEG2 XCOLORRANGE=LIMITED\nFRAME\n";
        assert!(is_y4m(bytes));
        let header = Header::parse(bytes).unwrap();
        assert_eq!(
            header,
            Header {
                len_bytes: bytes.len() - FRAME.len(),
                format: VideoFormat::I420,
                width: 352,
                height: 288,
                framerate: Some((30000, 1001)),
                pixel_aspect_ratio: Some((128, 117)),
                interlace_mode: VideoInterlaceMode::Interleaved,
                top_field_first: Some(true),
                chroma_site: Some("mpeg2"),
                full_range: false,
            }
        );
    }

    #[test]
    fn what_is_left_out_is_not_known() {
        let header = Header::parse(b"YUV4MPEG2 W4 H2 F0:0 A0:0\n").unwrap();
        assert_eq!(header.framerate, None);
        assert_eq!(header.pixel_aspect_ratio, None);
        assert_eq!(header.format, VideoFormat::I420);
    }

    #[test]
    fn bad_headers_are_refused() {
        let parse = |text: &str| Header::parse(text.as_bytes()).unwrap_err();
        assert_eq!(parse("YUV4MPEG2 W4 H2"), Y4mError::Unfinished(15));
        assert_eq!(parse("YUV4MPEG2 H2\n"), Y4mError::NoSize);
        assert_eq!(parse("YUV4MPEG2 W-4 H2\n"), Y4mError::NoSize);
        assert_eq!(parse("YUV4MPEG2 Wx H2\n"), Y4mError::Parameter("Wx".into()));
        assert_eq!(
            parse("YUV4MPEG2 W4 H2 F25\n"),
            Y4mError::Parameter("F25".into())
        );
        assert_eq!(
            parse("YUV4MPEG2 W4 H2 F1:0\n"),
            Y4mError::Parameter("F1:0".into())
        );
        assert_eq!(
            parse("YUV4MPEG2 W4 H2 C444alpha\n"),
            Y4mError::Colour("444alpha".into())
        );
        assert!(!is_y4m(b"YUV4MPEG W4"));
        assert!(!is_y4m(b"YUV4MPEG2X"));
    }

    #[test]
    fn frame_headers_may_have_parameters() {
        assert_eq!(frame_header_bytes(b"FRAME\nabc"), Ok(Some(6)));
        assert_eq!(frame_header_bytes(b"FRAME Ib\nabc"), Ok(Some(9)));
        assert_eq!(frame_header_bytes(b"FRAMEX\n"), Ok(None));
        assert_eq!(frame_header_bytes(b"GARBAGE"), Ok(None));
        assert_eq!(frame_header_bytes(b"FRA"), Err(Y4mError::Unfinished(3)));
        assert_eq!(frame_header_bytes(b"FRAME I"), Err(Y4mError::Unfinished(7)));
    }

    proptest! {
        #[test]
        fn any_bytes_are_parsed_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = Header::parse(&bytes);
            let _ = frame_header_bytes(&bytes);
            let mut with_magic = b"YUV4MPEG2 ".to_vec();
            with_magic.extend_from_slice(&bytes);
            let _ = Header::parse(&with_magic);
        }

        #[test]
        fn sizes_and_rates_come_back(width in 1i32.., height in 1i32.., n in 1i32.., d in 1i32..) {
            let text = format!("YUV4MPEG2 W{width} H{height} F{n}:{d} Ip C444\n");
            let header = Header::parse(text.as_bytes()).unwrap();
            prop_assert_eq!((header.width, header.height), (width, height));
            prop_assert_eq!(header.framerate, Some((n, d)));
            prop_assert_eq!(header.len_bytes, text.len());
        }
    }
}
