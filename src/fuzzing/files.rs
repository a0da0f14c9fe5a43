// SPDX-License-Identifier: MPL-2.0
//! Targets: the headers and the names of raw video files.

use std::path::Path;

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use super::{assert_printable, c_text};
use crate::rawvideosrc::{
    guess::Guess,
    sequence::Sequence,
    uri,
    y4m::{self, FrameLine, Header},
};

/// Headers of YUV4MPEG2: a stream header, then frame headers until one is refused.
pub fn y4m(bytes: &[u8]) {
    let mut rest = bytes;
    match Header::parse(bytes) {
        Ok(header) => {
            let len = usize::try_from(header.len_bytes).expect("a length in memory");
            let (line, behind) = bytes.split_at(len);
            assert!(len <= y4m::MAX_HEADER_BYTES && line.ends_with(b"\n"));
            assert!(header.width > 0 && header.height > 0);
            for (numer, denom) in header
                .framerate
                .into_iter()
                .chain(header.pixel_aspect_ratio)
            {
                assert!(numer > 0 && denom > 0);
            }
            // What follows a header has no influence on it.
            assert_eq!(Header::parse(line).as_ref(), Ok(&header));
            assert_eq!(header.check_same(&header, 0), Ok(()));
            rest = behind;
        }
        Err(error) => assert_printable(&error),
    }
    loop {
        match FrameLine::parse(rest) {
            Ok(Some(line)) => {
                assert!(rest.starts_with(&y4m::FRAME[..5]) && rest[line.len_bytes - 1] == b'\n');
                assert_eq!(FrameLine::parse(&rest[..line.len_bytes]), Ok(Some(line)));
                rest = &rest[line.len_bytes..];
            }
            Ok(None) => break,
            Err(error) => {
                assert_printable(&error);
                break;
            }
        }
    }
}

/// Names of files: what they say of the frames, patterns for many files, and URIs.
pub fn names(bytes: &[u8]) {
    use std::os::unix::ffi::OsStrExt;
    gst::init().expect("GStreamer"); // for the names of formats
    let path = Path::new(std::ffi::OsStr::from_bytes(bytes));
    let guess = Guess::from_path(path);
    assert!(
        guess
            .size
            .is_none_or(|(width, height)| width > 0 && height > 0)
    );
    assert!(
        guess
            .framerate
            .is_none_or(|(numer, denom)| numer > 0 && denom > 0)
    );
    // A name says the same in capitals.
    if bytes.is_ascii() {
        let capitals = bytes.to_ascii_uppercase();
        let same = Guess::from_path(Path::new(std::ffi::OsStr::from_bytes(&capitals)));
        assert_eq!(same, guess);
    }
    let Some(text) = c_text(bytes) else { return };
    if let Some(sequence) = Sequence::parse(text) {
        for number in [0, 1, 9, 10, 12_345, u64::MAX] {
            assert_eq!(sequence.number(&sequence.path(number)), Some(number));
        }
    }
    if let Ok(path) = uri::path_of(text) {
        assert!(!path.contains('\0'));
    }
    if let Ok(parsed) = uri::Parsed::parse(text) {
        let texts = parsed.properties.iter().map(|(_, value)| value);
        assert!(texts.chain(&parsed.path).all(|text| !text.contains('\0')));
    }
    // A path comes back from the URI that names it.
    let uri = format!(
        "{}:/{}",
        uri::SCHEME,
        utf8_percent_encode(text, NON_ALPHANUMERIC)
    );
    let parsed = uri::Parsed::parse(&uri).expect("an encoded path");
    let expected = (!text.is_empty()).then(|| format!("/{text}"));
    assert_eq!(parsed.path, expected);
}
