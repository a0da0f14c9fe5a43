// SPDX-License-Identifier: MPL-2.0
//! Reads frames at known offsets of a file.

use super::{
    Carrier, Destination, FrameIndex, FrameSource, Outcome, ReadError, Scratch, TransferPlan,
    read::CachedFile,
};
use crate::{
    layout::Run,
    rawvideosrc::{cpus::Cpus, y4m::Fields},
};
use std::io;

/// A file that several threads can read at any offset at the same time.
pub trait RandomAccess: Send + Sync {
    /// Reads the runs of a frame that starts at `start_bytes` of the file. `part` is the
    /// piece of the buffer that begins at byte `part_start`. Fails with `UnexpectedEof` at
    /// the end of the file.
    fn carry(
        &self,
        start_bytes: u64,
        runs: &[Run],
        part_start: usize,
        part: &mut [u8],
        scratch: &mut Scratch,
    ) -> io::Result<()>;

    /// The present size of the file; `None` for a device, whose metadata do not tell it.
    fn len_bytes(&self) -> Option<u64>;

    /// The same file for reads that never wait for the disk; `None` if it has no such reads.
    fn cached(&self) -> Option<CachedFile<'_>> {
        None
    }

    /// The error if bytes that were read, or lent as memory, turned out to be missing.
    fn loss(&self) -> Option<ReadError> {
        None
    }

    /// See [`FrameSource::bounced_bytes`].
    fn bounced_bytes(&self) -> u64 {
        0
    }
}

/// Reads each frame when it is requested.
pub struct FrameReader<M> {
    file: M,
    index: FrameIndex,
    carrier: Carrier,
    /// The greatest offset at which a frame that was read ends.
    read_end_bytes: u64,
}

impl<M: RandomAccess> FrameReader<M> {
    /// Starts the threads that `plan` is made for on the processors `cpus`, except the caller's,
    /// which is one of them.
    pub fn new(
        file: M,
        index: FrameIndex,
        plan: TransferPlan,
        cpus: Cpus,
    ) -> Result<Self, ReadError> {
        Ok(Self {
            file,
            index,
            carrier: Carrier::new(plan, cpus)?,
            read_end_bytes: 0,
        })
    }

    pub fn file(&self) -> &M {
        &self.file
    }

    pub fn file_mut(&mut self) -> &mut M {
        &mut self.file
    }

    pub fn frame_bytes(&self) -> u64 {
        self.carrier.frame_bytes()
    }

    pub fn index(&self) -> &FrameIndex {
        &self.index
    }

    /// For adding the frames of a file that grows.
    pub fn index_mut(&mut self) -> &mut FrameIndex {
        &mut self.index
    }

    /// How many bytes of a frame at `start_bytes` lie past the end of the file.
    pub fn missing_bytes(&self, start_bytes: u64) -> u64 {
        let len_bytes = self.file.len_bytes().unwrap_or(start_bytes);
        let end_bytes = start_bytes.saturating_add(self.frame_bytes());
        end_bytes.saturating_sub(len_bytes)
    }

    /// The outcome for a frame that is not whole in the file.
    fn rest(&self, start_bytes: u64) -> Outcome {
        let missing_bytes = self.missing_bytes(start_bytes);
        Outcome::End {
            have_bytes: self.frame_bytes().saturating_sub(missing_bytes),
            missing_bytes,
        }
    }

    fn note_read(&mut self, start_bytes: u64) {
        let end_bytes = start_bytes + self.frame_bytes();
        self.read_end_bytes = self.read_end_bytes.max(end_bytes);
    }

    /// The runs of a frame, if the plan is for one thread.
    pub fn runs(&mut self, destination: &Destination<'_>) -> &[Run] {
        self.carrier.runs(destination)
    }
}

/// The error for a truncated file: it says which frame is the first that is not whole.
pub fn vanished(index: &FrameIndex, len_bytes: u64, frame_bytes: u64) -> ReadError {
    let (frame, missing_bytes) = index.first_incomplete(len_bytes, frame_bytes);
    ReadError::Vanished {
        frame,
        missing_bytes,
    }
}

impl<M: RandomAccess> FrameSource for FrameReader<M> {
    fn read(&mut self, n: u64, destination: &mut Destination<'_>) -> Result<Outcome, ReadError> {
        let Some(offset_bytes) = self.index.start_bytes(n) else {
            return Ok(self.rest(u64::MAX));
        };
        let carried = (self.carrier).carry(&self.file, offset_bytes, destination);
        if let Some(loss) = self.file.loss() {
            return Err(loss);
        }
        match carried {
            Ok(()) => {
                self.note_read(offset_bytes);
                Ok(Outcome::Frame)
            }
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                Ok(self.rest(offset_bytes))
            }
            Err(source) => Err(ReadError::Io {
                frame: n,
                offset_bytes,
                source,
            }),
        }
    }

    fn is_cached(&self, n: u64) -> bool {
        let (Some(start_bytes), Some(file)) = (self.index.start_bytes(n), self.file.cached())
        else {
            return false;
        };
        let end_bytes = start_bytes.saturating_add(self.frame_bytes());
        file.has(start_bytes) && file.has(end_bytes.saturating_sub(1))
    }

    fn read_cached(&mut self, n: u64, destination: &mut Destination<'_>) -> bool {
        let (Some(offset_bytes), Some(file)) = (self.index.start_bytes(n), self.file.cached())
        else {
            return false;
        };
        let is_read = (self.carrier)
            .carry(&file, offset_bytes, destination)
            .is_ok();
        if is_read {
            self.note_read(offset_bytes);
        }
        is_read
    }

    fn bounced_bytes(&self) -> u64 {
        self.file.bounced_bytes()
    }

    fn loss(&self) -> Option<ReadError> {
        let len_bytes = self.file.len_bytes()?;
        (len_bytes < self.read_end_bytes)
            .then(|| vanished(&self.index, len_bytes, self.frame_bytes()))
    }

    fn fields(&self, n: u64) -> Option<Fields> {
        self.index.fields(n)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::{DirectFile, MappedFile, PlainFile, direct::Bounce};
    use super::*;
    use crate::layout::{
        Layout,
        samples::{format, info, naive, padded, rows_of},
    };
    use proptest::prelude::*;
    use std::{fs::File, io::Write};

    /// A layout of the file: without padding, GStreamer's own, or with more padding.
    pub fn source_layout(info: &gst_video::VideoInfo, padding: usize) -> Layout {
        match padding {
            0..100 => Layout::packed(info),
            100..200 => Layout::of_info(info),
            padding => padded(info, padding),
        }
    }

    /// A file of `frames` frames after a header, its bytes, and where the frames are.
    pub fn file_of(frames: usize, layout: &Layout, header: usize) -> (File, Vec<u8>, FrameIndex) {
        let bytes: Vec<u8> = (0..header + frames * layout.size_bytes)
            .map(|i| (i * 131 % 253) as u8)
            .collect();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&bytes).unwrap();
        let index = FrameIndex::Regular {
            start_bytes: header as u64,
            step_bytes: layout.size_bytes as u64,
        };
        (file, bytes, index)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(96))]
        #[test]
        fn frames_arrive_as_a_naive_reader_gets_them(
            format in format(),
            width in 1u32..80,
            height in 1u32..1200,
            header in 0usize..40,
            source_padding in 0usize..300,
            target_padding in 0usize..40,
            threads in 1usize..5,
            way in 0..3,
            shift in 0usize..3,
        ) {
            let info = info(format, width, height);
            let source = source_layout(&info, source_padding);
            let target = padded(&info, target_padding);
            let (file, bytes, index) = file_of(2, &source, header);
            let plan = TransferPlan::new(source, &info, threads);
            let cpus = Cpus::default();
            let mut reader: Box<dyn FrameSource> = match way {
                0 => Box::new(FrameReader::new(PlainFile(file), index, plan, cpus).unwrap()),
                1 => {
                    let frame_bytes = source.size_bytes;
                    let file =
                        MappedFile::new(file, bytes.len(), index.clone(), frame_bytes).unwrap();
                    Box::new(FrameReader::new(file, index, plan, cpus).unwrap())
                }
                _ => {
                    let Ok(file) = DirectFile::new(file) else {
                        println!("SKIPPED: no O_DIRECT in {}", std::env::temp_dir().display());
                        return Ok(());
                    };
                    Box::new(FrameReader::new(file, index, plan, cpus).unwrap())
                }
            };
            for n in [1u64, 0] {
                let mut bounce = Bounce::default();
                // On a page boundary, on a sector boundary, and on neither.
                let shift = [0, 512, 3][shift];
                let got = &mut bounce.get(shift + target.size_bytes)[shift..];
                got.fill(0xEE);
                let mut mapped = Destination::whole(got, target).unwrap();
                prop_assert_eq!(reader.read(n, &mut mapped).unwrap(), Outcome::Frame);
                let from = &bytes[header + n as usize * source.size_bytes..];
                let expected = naive(from, &source, &target);
                prop_assert!(rows_of(got, &target) == rows_of(&expected, &target));
            }
            let mut got = vec![0; target.size_bytes];
            let mut mapped = Destination::whole(&mut got, target).unwrap();
            let rest = Outcome::End {
                have_bytes: 0,
                missing_bytes: source.size_bytes as u64,
            };
            prop_assert_eq!(reader.read(2, &mut mapped).unwrap(), rest);
        }
    }

    #[test]
    fn planes_that_are_mapped_apart_are_filled() {
        gst::init().unwrap();
        let info = info(gst_video::VideoFormat::I420, 67, 35);
        let layout = Layout::of_info(&info);
        let (file, bytes, index) = file_of(1, &layout, 0);
        let plan = TransferPlan::new(layout, &info, 3);
        let mut reader = FrameReader::new(PlainFile(file), index, plan, Cpus::default()).unwrap();
        let mut planes = layout
            .planes
            .map(|plane| vec![0; plane.stride_bytes * plane.rows]);
        let mut destination =
            Destination::planes(planes.each_mut().map(|plane| plane.as_mut_slice()), layout)
                .unwrap();
        assert_eq!(reader.read(0, &mut destination).unwrap(), Outcome::Frame);
        for (got, plane) in planes.iter().zip(layout.planes()) {
            for row in 0..plane.rows {
                let at = row * plane.stride_bytes;
                assert_eq!(
                    got[at..at + plane.row_bytes],
                    bytes[plane.offset_bytes + at..][..plane.row_bytes]
                );
            }
        }
    }

    #[test]
    fn a_mapped_file_that_is_cut_short_is_an_error_and_no_signal() {
        gst::init().unwrap();
        // A multiple of any page size: reads past the end in a file's last page raise no signal.
        const FRAME_BYTES: usize = 128 * 128 * 4;
        let info = info(gst_video::VideoFormat::Bgrx, 128, 128);
        let layout = Layout::of_info(&info);
        let file = tempfile::tempfile().unwrap();
        file.set_len(4 * FRAME_BYTES as u64).unwrap();
        let index = FrameIndex::Regular {
            start_bytes: 0,
            step_bytes: FRAME_BYTES as u64,
        };
        let mapped = file.try_clone().unwrap();
        let mapped = MappedFile::new(mapped, 4 * FRAME_BYTES, index.clone(), FRAME_BYTES).unwrap();
        let plan = TransferPlan::new(layout, &info, 1);
        let mut reader = FrameReader::new(mapped, index, plan, Cpus::default()).unwrap();
        file.set_len(2 * FRAME_BYTES as u64).unwrap();
        let mut bytes = vec![0; FRAME_BYTES];
        let mut destination = Destination::whole(&mut bytes, layout).unwrap();
        assert_eq!(reader.read(1, &mut destination).unwrap(), Outcome::Frame);
        let Err(ReadError::Vanished {
            frame,
            missing_bytes,
        }) = reader.read(3, &mut destination)
        else {
            panic!("the file is shorter than that");
        };
        assert_eq!((frame, missing_bytes), (2, FRAME_BYTES as u64));
    }
}
