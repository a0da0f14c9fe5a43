// SPDX-License-Identifier: MPL-2.0
//! Parses the stream headers and frame headers of YUV4MPEG2.

use gst_video::{VideoFormat, VideoInterlaceMode};

/// The first word of a stream header.
pub const MAGIC: &[u8] = b"YUV4MPEG2";
/// A frame header without parameters: the shortest one.
pub const FRAME: &[u8] = b"FRAME\n";
/// A header must end within this many bytes.
pub const MAX_HEADER_BYTES: usize = 4096;

/// A stream header. `None` stands for what the header leaves out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// Includes the newline.
    pub len_bytes: u64,
    /// From parameter C, else from XYSCSS.
    pub colour: Option<Colour>,
    pub width: i32,
    pub height: i32,
    pub framerate: Option<(i32, i32)>,
    pub pixel_aspect_ratio: Option<(i32, i32)>,
    /// `Mixed` means that each frame header says how its fields are stored.
    pub interlace_mode: Option<VideoInterlaceMode>,
    /// `None` unless the frames are interlaced.
    pub top_field_first: Option<bool>,
    /// Whether black is at level 0 and white at 255, instead of 16 and 235.
    pub full_range: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Colour {
    pub format: VideoFormat,
    pub chroma_site: Option<&'static str>,
}

impl Default for Colour {
    /// The colour space of a header without parameter C, by yuv4mpeg(5).
    fn default() -> Self {
        Self {
            format: VideoFormat::I420,
            chroma_site: Some("jpeg"),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Y4mError {
    #[error("the header has no end within {0} bytes")]
    Unfinished(usize),
    /// The text is printed with `{:?}`, which escapes control characters, because a message
    /// of GStreamer cannot contain a NUL.
    #[error(
        "{0:?} in the header makes no sense: write the file anew (ffmpeg -i damaged.y4m whole.y4m), or correct the header"
    )]
    Parameter(String),
    #[error("there is no GStreamer format for colour space {0:?}: convert the file")]
    Colour(String),
    #[error("the header does not give width and height")]
    NoSize,
    #[error("there is no FRAME at byte {0}: it is damaged there, or no YUV4MPEG2 from there on")]
    NoFrame(u64),
    #[error("there is not one whole frame of {0} bytes behind its header: it is empty, or cut")]
    NoFrames(u64),
    #[error(
        "the header at byte {at} says {found}, the first one {first}: play files of different pictures one by one"
    )]
    Differs {
        /// Offset of the second header.
        at: u64,
        found: String,
        first: String,
    },
}

pub fn is_y4m(bytes: &[u8]) -> bool {
    bytes
        .strip_prefix(MAGIC)
        .is_some_and(|rest| matches!(rest.first(), Some(b' ' | b'\n' | b'\r')))
}

/// The words of the first line of `bytes`, and the line's length with its newline. Tools on
/// Windows put a carriage return before the newline; it counts in the length only.
fn line(bytes: &[u8]) -> Result<(impl Iterator<Item = &[u8]>, usize), Y4mError> {
    let end = bytes
        .iter()
        .take(MAX_HEADER_BYTES)
        .position(|byte| *byte == b'\n')
        .ok_or(Y4mError::Unfinished(bytes.len().min(MAX_HEADER_BYTES)))?;
    let text = bytes[..end].strip_suffix(b"\r").unwrap_or(&bytes[..end]);
    let words = text.split(|byte| *byte == b' ');
    Ok((words.filter(|word| !word.is_empty()), end + 1))
}

impl Header {
    /// Parses the stream header at the beginning of `bytes`.
    pub fn parse(bytes: &[u8]) -> Result<Self, Y4mError> {
        let (words, len_bytes) = line(bytes)?;
        let mut header = Self {
            len_bytes: len_bytes as u64,
            colour: None,
            width: 0,
            height: 0,
            framerate: None,
            pixel_aspect_ratio: None,
            interlace_mode: None,
            top_field_first: None,
            full_range: false,
        };
        let mut subsampling = None;
        for word in words.skip(1) {
            let text = String::from_utf8_lossy(word).into_owned();
            if let Some(value) = text.strip_prefix("XYSCSS=") {
                subsampling = colour(value);
            }
            header
                .take_parameter(&text)
                .ok_or(Y4mError::Parameter(text.clone()))??;
        }
        header.colour = header.colour.or(subsampling);
        if header.width <= 0 || header.height <= 0 {
            return Err(Y4mError::NoSize);
        }
        Ok(header)
    }

    /// Takes one parameter. `None` if its value makes no sense.
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
                    "?" => (None, None),
                    "p" => (Some(VideoInterlaceMode::Progressive), None),
                    "t" => (Some(VideoInterlaceMode::Interleaved), Some(true)),
                    "b" => (Some(VideoInterlaceMode::Interleaved), Some(false)),
                    "m" => (Some(VideoInterlaceMode::Mixed), None),
                    _ => return None,
                }
            }
            'C' => match colour(value) {
                Some(colour) => self.colour = Some(colour),
                None => return Some(Err(Y4mError::Colour(value.to_owned()))),
            },
            'X' if value == "COLORRANGE=FULL" => self.full_range = true,
            // Comments and unknown parameters are skipped.
            _ => {}
        }
        Some(Ok(()))
    }

    /// Fails if the frames after the header `other`, which is at byte `at`, differ in size or
    /// format from the frames after this one.
    pub fn check_same(&self, other: &Self, at: u64) -> Result<(), Y4mError> {
        let (first, found) = (self.pictures(), other.pictures());
        if first == found {
            return Ok(());
        }
        Err(Y4mError::Differs { at, found, first })
    }

    /// Size and format for an error text.
    fn pictures(&self) -> String {
        let format = self.colour.unwrap_or_default().format;
        format!("{}x{} {format}", self.width, self.height)
    }

    pub fn is_mixed(&self) -> bool {
        self.interlace_mode == Some(VideoInterlaceMode::Mixed)
    }
}

/// `Some(None)` if either number is 0, which means that the ratio is unknown: GStreamer's
/// y4menc writes F0:1 for a still picture.
fn ratio(value: &str) -> Option<Option<(i32, i32)>> {
    let (numer, denom) = value.split_once(':')?;
    match (numer.parse().ok()?, denom.parse().ok()?) {
        (0, 0..) | (0.., 0) => Some(None),
        (numer @ 1.., denom @ 1..) => Some(Some((numer, denom))),
        _ => None,
    }
}

fn colour(value: &str) -> Option<Colour> {
    let (format, chroma_site) = match value.to_ascii_lowercase().as_str() {
        "420jpeg" | "420" => (VideoFormat::I420, Some("jpeg")),
        "420mpeg2" => (VideoFormat::I420, Some("mpeg2")),
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
    };
    Some(Colour {
        format,
        chroma_site,
    })
}

/// How the fields of one frame are stored and shown, from parameter I of the frame header. It
/// counts only if the stream header has `Im` (mixed).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Fields {
    /// The two fields were sampled at different times.
    pub is_interlaced: bool,
    pub top_first: bool,
    /// The first field is shown again after the second.
    pub repeats_first: bool,
}

impl Fields {
    /// Parses the three letters of the parameter: presentation, temporal sampling, and chroma
    /// sampling, for which there is no buffer flag. Frames that are shown two or three times
    /// get the flags that MPEG-2 has for them.
    fn parse(value: &[u8]) -> Option<Self> {
        let [presentation, sampling, ..] = value else {
            return None;
        };
        Some(Self {
            is_interlaced: *sampling == b'i',
            top_first: matches!(presentation, b't' | b'T' | b'3'),
            repeats_first: matches!(presentation, b'T' | b'B' | b'2' | b'3'),
        })
    }
}

/// The frame header, a line in front of each picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameLine {
    /// Includes the newline.
    pub len_bytes: usize,
    /// `None` if there is no parameter I.
    pub fields: Option<Fields>,
}

impl FrameLine {
    /// Parses the frame header at the beginning of `bytes`. `None` if there is none;
    /// `Unfinished` if the bytes end before its newline.
    pub fn parse(bytes: &[u8]) -> Result<Option<Self>, Y4mError> {
        let word = &FRAME[..FRAME.len() - 1];
        let seen = bytes.len().min(word.len());
        if bytes[..seen] != word[..seen] {
            return Ok(None);
        }
        match bytes.get(word.len()) {
            None | Some(b' ' | b'\n' | b'\r') => {}
            Some(_) => return Ok(None),
        }
        let (words, len_bytes) = line(bytes)?;
        let mut parameters = words.skip(1).filter_map(|word| word.strip_prefix(b"I"));
        Ok(Some(Self {
            len_bytes,
            fields: parameters.find_map(Fields::parse),
        }))
    }
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
                len_bytes: (bytes.len() - FRAME.len()) as u64,
                colour: Some(Colour {
                    format: VideoFormat::I420,
                    chroma_site: Some("mpeg2"),
                }),
                width: 352,
                height: 288,
                framerate: Some((30000, 1001)),
                pixel_aspect_ratio: Some((128, 117)),
                interlace_mode: Some(VideoInterlaceMode::Interleaved),
                top_field_first: Some(true),
                full_range: false,
            }
        );
    }

    #[test]
    fn what_is_left_out_is_not_known() {
        for zero in ["F0:0 A0:0", "F0:1 A0:1", "F30:0 A1:0", ""] {
            let header = Header::parse(format!("YUV4MPEG2 W4 H2 {zero}\n").as_bytes()).unwrap();
            assert_eq!(header.framerate, None, "{zero}");
            assert_eq!(header.pixel_aspect_ratio, None, "{zero}");
            assert_eq!((header.colour, header.interlace_mode), (None, None));
        }
        let unknown = Header::parse(b"YUV4MPEG2 W4 H2 I?\n").unwrap();
        assert_eq!(unknown.interlace_mode, None);
    }

    #[test]
    fn the_colour_space_is_in_c_or_else_in_a_comment() {
        let colour = |text: &str| {
            let header = Header::parse(format!("YUV4MPEG2 W4 H2{text}\n").as_bytes());
            let colour = header.unwrap().colour.unwrap_or_default();
            (colour.format, colour.chroma_site)
        };
        let jpeg = (VideoFormat::I420, Some("jpeg"));
        assert_eq!(colour(""), jpeg);
        assert_eq!(colour(" C420"), jpeg);
        assert_eq!(colour(" C420jpeg XYSCSS=420MPEG2"), jpeg);
        assert_eq!(colour(" XYSCSS=420MPEG2 C420jpeg"), jpeg);
        assert_eq!(colour(" XYSCSS=422"), (VideoFormat::Y42b, None));
        assert_eq!(colour(" XYSCSS=444P10"), (VideoFormat::Y44410le, None));
        assert_eq!(colour(" XYSCSS=odd"), jpeg);
    }

    #[test]
    fn lines_may_end_as_on_windows() {
        let header = Header::parse(b"YUV4MPEG2 W4 H2 F25:1 C422\r\nFRAME\r\n").unwrap();
        assert_eq!(header.len_bytes, 28);
        assert_eq!(header.colour.unwrap().format, VideoFormat::Y42b);
        assert!(is_y4m(b"YUV4MPEG2\r\n"));
        let frame = FrameLine::parse(b"FRAME\r\nabc").unwrap().unwrap();
        assert_eq!(frame.len_bytes, 7);
        let frame = FrameLine::parse(b"FRAME Itii\r\n").unwrap().unwrap();
        assert_eq!(frame.len_bytes, 12);
        assert!(frame.fields.unwrap().is_interlaced);
    }

    #[test]
    fn other_pictures_behind_a_second_header_are_refused() {
        let parse = |text: &str| Header::parse(text.as_bytes()).unwrap();
        let first = parse("YUV4MPEG2 W4 H2 F25:1 C420jpeg\n");
        let same = first.check_same(&parse("YUV4MPEG2 W4 H2 F30:1\n"), 9);
        assert_eq!(same, Ok(()));
        for other in ["W4 H4 C420jpeg", "W4 H2 C422"] {
            let other = parse(&format!("YUV4MPEG2 {other}\n"));
            let text = first.check_same(&other, 77).unwrap_err().to_string();
            assert!(
                text.contains("byte 77") && text.contains("4x2 I420"),
                "{text}"
            );
        }
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
            parse("YUV4MPEG2 W4 H2 F-1:1\n"),
            Y4mError::Parameter("F-1:1".into())
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
        let parse = |bytes| FrameLine::parse(bytes).map(|line| line.map(|line| line.len_bytes));
        assert_eq!(parse(b"FRAME\nabc"), Ok(Some(6)));
        assert_eq!(parse(b"FRAME Ib\nabc"), Ok(Some(9)));
        assert_eq!(parse(b"FRAMEX\n"), Ok(None));
        assert_eq!(parse(b"GARBAGE"), Ok(None));
        assert_eq!(parse(b"FRA"), Err(Y4mError::Unfinished(3)));
        assert_eq!(parse(b"FRAME I"), Err(Y4mError::Unfinished(7)));
    }

    #[test]
    fn frames_say_how_their_fields_are_shown() {
        // The values are those of `Fields` in order, by yuv4mpeg(5), and for frames that are
        // shown two or three times by the flags of MPEG-2.
        for (letters, expected) in [
            ("tii", (true, true, false)),
            ("Tii", (true, true, true)),
            ("bii", (true, false, false)),
            ("Bii", (true, false, true)),
            ("tpp", (false, true, false)),
            ("1pp", (false, false, false)),
            ("2pp", (false, false, true)),
            ("3pp", (false, true, true)),
        ] {
            let line = FrameLine::parse(format!("FRAME XC I{letters}\n").as_bytes());
            let fields = line.unwrap().unwrap().fields.unwrap();
            let got = (fields.is_interlaced, fields.top_first, fields.repeats_first);
            assert_eq!(got, expected, "{letters}");
        }
        let none = FrameLine::parse(b"FRAME Ip\n").unwrap().unwrap();
        assert_eq!(none.fields, None);
    }

    #[test]
    fn what_is_said_of_a_broken_header_can_be_a_message() {
        for header in [
            &b"YUV4MPEG2 W4\0 H4\n"[..],
            b"YUV4MPEG2 W4 H4 C420\0x\n",
            b"YUV4MPEG2 W4 H4 \x1b[2J C\0\n",
        ] {
            let text = Header::parse(header).unwrap_err().to_string();
            assert!(!text.contains(char::is_control), "{text:?}");
        }
        let refused = Header::parse(b"YUV4MPEG2 W4 H4 Cfoo\n").unwrap_err();
        assert!(
            refused.to_string().contains("colour space \"foo\":"),
            "{refused}"
        );
    }

    proptest! {
        #[test]
        fn any_bytes_are_parsed_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = Header::parse(&bytes);
            let _ = FrameLine::parse(&bytes);
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
            prop_assert_eq!(header.len_bytes, text.len() as u64);
        }
    }
}
