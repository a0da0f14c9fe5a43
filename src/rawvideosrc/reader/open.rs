// SPDX-License-Identifier: MPL-2.0
//! Opening a file of frames and counting them, with every way that can fail
//! said in a sentence that holds the path, the numbers and a remedy.

use crate::{layout::FrameLayout, sys::describe};
use std::{
    fs::File,
    io::{self, Seek, SeekFrom},
    os::{
        fd::AsFd,
        unix::fs::{FileTypeExt, OpenOptionsExt},
    },
    path::{Path, PathBuf},
};

/// Frames larger than this cannot be read with one system call.
pub const MAX_FRAME_BYTES: u64 = 0x7fff_f000;

/// Why a file cannot be played.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// There is no such file.
    #[error("no file \"{}\": {}; check location", path.display(), describe(source))]
    NotFound {
        /// What was to be opened.
        path: PathBuf,
        /// errno.
        source: io::Error,
    },
    /// The file is not for this user.
    #[error("no permission to read \"{}\": {}; chmod +r it, or run as its owner", path.display(), describe(source))]
    Permission {
        /// What was to be opened.
        path: PathBuf,
        /// errno.
        source: io::Error,
    },
    /// A directory has no frames.
    #[error("\"{}\": {}; give the path of a file in it", path.display(), describe(&io::Error::from_raw_os_error(libc::EISDIR)))]
    Directory {
        /// What was to be opened.
        path: PathBuf,
    },
    /// Anything else that the kernel says.
    #[error("cannot read \"{}\": {}; check location", path.display(), describe(source))]
    Other {
        /// What was to be opened.
        path: PathBuf,
        /// errno.
        source: io::Error,
    },
    /// Less than one frame.
    #[error(
        "\"{}\" holds {have_bytes} bytes from byte {start_bytes} on, less than one frame of {frame_bytes}: check format, width and height", path.display()
    )]
    NoWholeFrame {
        /// The file.
        path: PathBuf,
        /// Bytes that can hold frames.
        have_bytes: u64,
        /// Where frames begin.
        start_bytes: u64,
        /// Bytes of one frame.
        frame_bytes: u64,
    },
}

/// An open file and what can be told without knowing its format.
#[derive(Debug)]
pub struct Opened {
    /// The file.
    pub file: File,
    /// Where it is.
    pub path: PathBuf,
    /// Its size.
    pub len_bytes: u64,
}

/// What a path turned out to be.
#[derive(Debug)]
pub enum Opening {
    /// Something with a size that can be read at any place.
    File(Opened),
    /// Something that is read from front to back: never blocks, poll it.
    Stream(File),
}

impl Opened {
    /// Opens a file for reading; "-" is standard input.
    pub fn open(path: &Path) -> Result<Opening, OpenError> {
        let failed = |source: io::Error| {
            let path = path.to_owned();
            match source.kind() {
                io::ErrorKind::NotFound => OpenError::NotFound { path, source },
                io::ErrorKind::PermissionDenied => OpenError::Permission { path, source },
                _ => OpenError::Other { path, source },
            }
        };
        let mut file = if path == Path::new("-") {
            File::from(io::stdin().as_fd().try_clone_to_owned().map_err(failed)?)
        } else {
            // A FIFO without a writer must not hold up a state change.
            File::options()
                .read(true)
                .custom_flags(libc::O_NONBLOCK)
                .open(path)
                .map_err(failed)?
        };
        let kind = file.metadata().map_err(failed)?.file_type();
        if kind.is_dir() {
            return Err(OpenError::Directory {
                path: path.to_owned(),
            });
        }
        if kind.is_fifo() || kind.is_char_device() || kind.is_socket() {
            return Ok(Opening::Stream(file));
        }
        // The end of a block device is found by seeking, not by stat.
        let len_bytes = file.seek(SeekFrom::End(0)).map_err(failed)?;
        Ok(Opening::File(Self {
            file,
            path: path.to_owned(),
            len_bytes,
        }))
    }

    /// The frames in it, from `start_bytes` on, and the bytes left over.
    pub fn count_frames(
        &self,
        start_bytes: u64,
        layout: &FrameLayout,
    ) -> Result<(u64, u64), OpenError> {
        let have_bytes = self.len_bytes.saturating_sub(start_bytes);
        let frame_bytes = layout.size_bytes as u64;
        if have_bytes < frame_bytes || frame_bytes == 0 {
            return Err(OpenError::NoWholeFrame {
                path: self.path.clone(),
                have_bytes,
                start_bytes,
                frame_bytes,
            });
        }
        Ok((have_bytes / frame_bytes, have_bytes % frame_bytes))
    }
}

/// The layout of a file about which nothing was said: GStreamer's own, unless
/// the size fits only frames without padding, as other programs write them.
pub fn guess_layout(info: &gst_video::VideoInfo, data_bytes: u64) -> FrameLayout {
    let stock = FrameLayout::of_info(info);
    let packed = FrameLayout::packed(info);
    let fits = |layout: &FrameLayout| {
        data_bytes > 0 && data_bytes.is_multiple_of(layout.size_bytes as u64)
    };
    if !fits(&stock) && fits(&packed) {
        packed
    } else {
        stock
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::samples;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn each_failure_names_path_errno_and_remedy() {
        let dir = tempfile::tempdir().unwrap();
        let text = |path: &Path| Opened::open(path).unwrap_err().to_string();
        let missing = text(&dir.path().join("none.raw"));
        assert!(missing.contains("none.raw") && missing.contains("ENOENT"));
        let directory = text(dir.path());
        assert!(directory.contains("directory") && directory.contains("EISDIR"));
        let secret = dir.path().join("secret.raw");
        std::fs::write(&secret, b"x").unwrap();
        std::fs::set_permissions(&secret, PermissionsExt::from_mode(0o0)).unwrap();
        // Root reads what nobody may.
        if File::open(&secret).is_err() {
            let permission = text(&secret);
            assert!(permission.contains("secret.raw") && permission.contains("EACCES"));
        }
    }

    #[test]
    fn files_of_other_programs_are_recognised_by_their_size() {
        gst::init().unwrap();
        let info = samples::info(gst_video::VideoFormat::Bgr, 33, 17);
        assert_eq!(guess_layout(&info, 1700 * 3).size_bytes, 1700);
        assert_eq!(guess_layout(&info, 1683 * 3).size_bytes, 1683);
        assert_eq!(guess_layout(&info, 1683 * 3 + 1).size_bytes, 1700);
    }
}
