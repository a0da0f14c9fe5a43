// SPDX-License-Identifier: MPL-2.0
//! Frames of a file by pread, straight into the buffer.

use super::{FrameSource, Outcome, ReadError, Route, Target};
use crate::layout::Run;
use nix::sys::uio;
use std::{fs::File, io, io::IoSliceMut, os::unix::fs::FileExt};

/// Pieces handed to one preadv. IOV_MAX is 1024; past some hundred pieces the
/// system call itself is no longer seen in a profile.
const PIECES: usize = 512;
/// Bytes between rows of the file that are read and thrown away; a longer gap
/// is cheaper to skip with a second system call.
const GAP_BYTES: usize = 256;

/// Reads each frame when it is asked for.
#[derive(Debug)]
pub struct FileReader {
    file: File,
    /// Of the first frame.
    start_bytes: u64,
    route: Route,
    /// Takes the bytes between the rows of a padded file.
    waste: Box<[u8]>,
}

impl FileReader {
    /// Frames laid out as the route's source, one after the other from
    /// `start_bytes` on.
    pub fn new(file: File, start_bytes: u64, route: Route) -> Self {
        Self {
            file,
            start_bytes,
            route,
            waste: vec![0; PIECES / 2 * GAP_BYTES].into_boxed_slice(),
        }
    }
}

impl FrameSource for FileReader {
    fn read(&mut self, n: u64, target: &mut Target<'_>) -> Result<Outcome, ReadError> {
        let frame_bytes = self.route.source().size_bytes as u64;
        let Some(offset_bytes) = n
            .checked_mul(frame_bytes)
            .and_then(|bytes| bytes.checked_add(self.start_bytes))
        else {
            return Ok(Outcome::End);
        };
        let (layout, apart) = (*target.layout(), target.is_apart());
        let mut runs = self.route.to(&layout, apart).runs();
        while let Some(first) = runs.first() {
            let count = preadv_length(runs);
            let part = &mut *target.parts_mut()[first.part];
            match read_runs(
                &self.file,
                offset_bytes,
                &runs[..count],
                part,
                &mut self.waste,
            ) {
                Ok(()) => runs = &runs[count..],
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                    return Ok(Outcome::End);
                }
                Err(source) => {
                    return Err(ReadError::Io {
                        frame: n,
                        offset_bytes,
                        source,
                    });
                }
            }
        }
        Ok(Outcome::Frame)
    }
}

/// How many of the runs one preadv can fill: they must ascend on both sides,
/// with no more than a small gap in the file.
fn preadv_length(runs: &[Run]) -> usize {
    let follows = |pair: &[Run]| {
        let [a, b] = pair else { return false };
        a.part == b.part
            && b.target_bytes >= a.target_bytes + a.len_bytes
            && b.source_bytes
                .checked_sub(a.source_bytes + a.len_bytes)
                .is_some_and(|gap| gap <= GAP_BYTES)
    };
    1 + runs
        .windows(2)
        .take(PIECES / 2 - 1)
        .take_while(|pair| follows(pair))
        .count()
}

/// Fills `runs`, which [`preadv_length`] has found to belong together.
fn read_runs(
    file: &File,
    offset_bytes: u64,
    runs: &[Run],
    part: &mut [u8],
    waste: &mut [u8],
) -> io::Result<()> {
    if let [_, _, ..] = runs
        && preadv_runs(file, offset_bytes, runs, part, waste)?
    {
        return Ok(());
    }
    // One run, or an answer cut short: what is missing is asked for piece by
    // piece, and the end of the file shows itself.
    for run in runs {
        let bytes = &mut part[run.target_bytes..run.target_bytes + run.len_bytes];
        file.read_exact_at(bytes, offset_bytes + run.source_bytes as u64)?;
    }
    Ok(())
}

/// True if all bytes came at once.
fn preadv_runs(
    file: &File,
    offset_bytes: u64,
    runs: &[Run],
    part: &mut [u8],
    waste: &mut [u8],
) -> io::Result<bool> {
    let mut pieces: [IoSliceMut<'_>; PIECES] = std::array::from_fn(|_| IoSliceMut::new(&mut []));
    let mut filled = 0;
    let mut wanted = 0;
    let (mut rest, mut rest_at) = (part, 0);
    let mut waste = waste;
    let mut source_at = runs[0].source_bytes;
    for run in runs {
        let gap = run.source_bytes - source_at;
        if gap > 0 {
            let (piece, after) = waste.split_at_mut(gap);
            waste = after;
            pieces[filled] = IoSliceMut::new(piece);
            filled += 1;
        }
        let (_, after) = rest.split_at_mut(run.target_bytes - rest_at);
        let (piece, after) = after.split_at_mut(run.len_bytes);
        rest = after;
        rest_at = run.target_bytes + run.len_bytes;
        pieces[filled] = IoSliceMut::new(piece);
        filled += 1;
        source_at = run.source_bytes + run.len_bytes;
        wanted += gap + run.len_bytes;
    }
    let start = i64::try_from(offset_bytes + runs[0].source_bytes as u64)
        .map_err(|_| io::ErrorKind::InvalidInput)?;
    loop {
        match uio::preadv(file, &mut pieces[..filled], start) {
            Ok(read) => return Ok(read == wanted),
            Err(nix::errno::Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::FrameLayout;
    use proptest::prelude::*;
    use std::io::Write;

    /// The frames of `layout` in `bytes`, copied row by row.
    fn naive(bytes: &[u8], source: &FrameLayout, target: &FrameLayout) -> Vec<u8> {
        let mut to = vec![0xEE; target.size_bytes];
        for (a, b) in source.planes().iter().zip(target.planes()) {
            for row in 0..a.rows {
                let a_at = a.offset_bytes + row * a.stride_bytes;
                let b_at = b.offset_bytes + row * b.stride_bytes;
                to[b_at..b_at + a.row_bytes].copy_from_slice(&bytes[a_at..a_at + a.row_bytes]);
            }
        }
        to
    }

    fn rows_of(bytes: &[u8], layout: &FrameLayout) -> Vec<Vec<u8>> {
        layout
            .planes()
            .iter()
            .flat_map(|plane| {
                (0..plane.rows).map(|row| {
                    let at = plane.offset_bytes + row * plane.stride_bytes;
                    bytes[at..at + plane.row_bytes].to_vec()
                })
            })
            .collect()
    }

    fn format() -> impl Strategy<Value = gst_video::VideoFormat> {
        gst::init().unwrap();
        proptest::sample::select(gst_video::VideoFormat::iter_raw().collect::<Vec<_>>())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn frames_arrive_as_a_naive_reader_gets_them(
            format in format(),
            width in 1u32..80,
            height in 1u32..600,
            header in 0usize..40,
            source_padding in 0usize..300,
            target_padding in 0usize..40,
        ) {
            let info = gst_video::VideoInfo::builder(format, width, height).build().unwrap();
            let pad = |bytes: usize| {
                if info.format_info().is_tiled() {
                    return FrameLayout::of_info(&info);
                }
                let strides: Vec<i32> = FrameLayout::of_info(&info).planes().iter()
                    .map(|plane| (plane.stride_bytes + bytes) as i32).collect();
                FrameLayout::custom(&info, &strides, &[], 0).unwrap()
            };
            let source = match source_padding {
                0..100 => FrameLayout::packed(&info),
                100..200 => FrameLayout::of_info(&info),
                padding => pad(padding),
            };
            let target = pad(target_padding);
            let bytes: Vec<u8> = (0..header + 2 * source.size_bytes)
                .map(|i| (i * 131 % 253) as u8).collect();
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(&bytes).unwrap();
            let mut reader = FileReader::new(file, header as u64, Route::new(source, &info));
            for n in [1u64, 0] {
                let mut got = vec![0xEE; target.size_bytes];
                let mut mapped = Target::whole(&mut got, target).unwrap();
                prop_assert_eq!(reader.read(n, &mut mapped).unwrap(), Outcome::Frame);
                let from = &bytes[header + n as usize * source.size_bytes..];
                let expected = naive(from, &source, &target);
                prop_assert_eq!(rows_of(&got, &target), rows_of(&expected, &target));
            }
            let mut got = vec![0; target.size_bytes];
            let mut mapped = Target::whole(&mut got, target).unwrap();
            prop_assert_eq!(reader.read(2, &mut mapped).unwrap(), Outcome::End);
        }
    }
}
