// SPDX-License-Identifier: MPL-2.0
//! Opens a file of frames. Each error text says the path, the numbers and what to do.

use crate::sys::describe;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use std::{
    fs::File,
    io::{self, Seek, SeekFrom},
    os::{
        fd::AsFd,
        unix::fs::{FileTypeExt, OpenOptionsExt},
    },
    path::{Path, PathBuf},
};

/// Linux reads no more bytes with one system call (MAX_RW_COUNT).
pub const MAX_FRAME_BYTES: u64 = 0x7fff_f000;

#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("no file \"{}\": {}; check location", path.display(), describe(source))]
    NotFound {
        /// The path that cannot be played.
        path: PathBuf,
        source: io::Error,
    },
    #[error("no permission to read \"{}\": {}; chmod +r it, or run as its owner", path.display(), describe(source))]
    Permission {
        /// The path that cannot be played.
        path: PathBuf,
        source: io::Error,
    },
    #[error("\"{}\": {}; give the path of a file in it", path.display(), describe(&io::Error::from_raw_os_error(libc::EISDIR)))]
    Directory {
        /// The path that cannot be played.
        path: PathBuf,
    },
    #[error("cannot read \"{}\": {}; check location", path.display(), describe(source))]
    Other {
        /// The path that cannot be played.
        path: PathBuf,
        source: io::Error,
    },
    #[error(
        "\"{}\" is {what}, and a sequence is made of files: move it away, or play it alone", path.display()
    )]
    NotAFile {
        path: PathBuf,
        /// The kind of file, with its article.
        what: &'static str,
    },
    #[error(
        "\"{}\" holds {have_bytes} bytes from byte {start_bytes} on, less than one frame of {frame_bytes}: check format, width, height and offset", path.display()
    )]
    NoWholeFrame {
        path: PathBuf,
        have_bytes: u64,
        start_bytes: u64,
        frame_bytes: u64,
    },
}

#[derive(Debug)]
pub struct Opened {
    pub file: File,
    pub path: PathBuf,
    pub len_bytes: u64,
    /// Where the data begin: in standard input, after the bytes that others have read.
    pub start_bytes: u64,
}

#[derive(Debug)]
pub enum Opening {
    /// A regular file or block device: it has a size and can be read at any offset.
    File(Opened),
    /// A pipe, socket or character device, which is read from front to back. Its reads may
    /// block, so it must be polled first.
    Stream(File),
}

/// Clears O_NONBLOCK of a regular file. read() ignores the flag there, but io_uring fails with
/// EAGAIN if the file system cannot read without waiting (9p, NFS).
fn block(file: &File) -> io::Result<()> {
    let flags = OFlag::from_bits_retain(fcntl(file, FcntlArg::F_GETFL)?);
    fcntl(file, FcntlArg::F_SETFL(flags - OFlag::O_NONBLOCK))?;
    Ok(())
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
            // Opening a FIFO that has no writer must not block a state change.
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
        if path != Path::new("-") {
            block(&file).map_err(failed)?;
        }
        let start_bytes = file.stream_position().map_err(failed)?;
        // The size of a block device is found by seeking, not by stat. The offset is put back,
        // because others may share standard input.
        let len_bytes = match file.seek(SeekFrom::End(0)) {
            Ok(len_bytes) => len_bytes,
            // A file of /proc has no end before it is read.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
                return Ok(Opening::Stream(file));
            }
            Err(error) => return Err(failed(error)),
        };
        file.seek(SeekFrom::Start(start_bytes)).map_err(failed)?;
        Ok(Opening::File(Self {
            file,
            path: path.to_owned(),
            len_bytes,
            start_bytes,
        }))
    }

    /// Opens one file of a sequence, which must not be a pipe, socket or character device.
    pub fn open_file(path: &Path) -> Result<Self, OpenError> {
        let stream = match Self::open(path)? {
            Opening::File(opened) => return Ok(opened),
            Opening::Stream(file) => file,
        };
        let kind = stream.metadata().map(|metadata| metadata.file_type());
        let what = match kind {
            Ok(kind) if kind.is_fifo() => "a FIFO",
            Ok(kind) if kind.is_socket() => "a socket",
            Ok(kind) if kind.is_char_device() => "a character device",
            _ => "a file without a size",
        };
        Err(OpenError::NotAFile {
            path: path.to_owned(),
            what,
        })
    }

    pub fn try_clone(&self) -> Result<Self, OpenError> {
        let file = self.file.try_clone().map_err(|source| OpenError::Other {
            path: self.path.clone(),
            source,
        })?;
        Ok(Self {
            file,
            path: self.path.clone(),
            len_bytes: self.len_bytes,
            start_bytes: self.start_bytes,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn reads_of_a_regular_file_may_wait_and_those_of_a_pipe_may_not() {
        let dir = tempfile::tempdir().unwrap();
        let regular = dir.path().join("clip.raw");
        std::fs::write(&regular, b"x").unwrap();
        let pipe = dir.path().join("fifo");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
        for (path, is_blocking) in [(regular, true), (pipe, false)] {
            let (Opening::File(Opened { file, .. }) | Opening::Stream(file)) =
                Opened::open(&path).unwrap();
            let flags = fcntl(&file, FcntlArg::F_GETFL).unwrap();
            assert_eq!(flags & libc::O_NONBLOCK == 0, is_blocking, "{path:?}");
        }
    }

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
        // Root may read any file, whatever its mode.
        if File::open(&secret).is_err() {
            let permission = text(&secret);
            assert!(permission.contains("secret.raw") && permission.contains("EACCES"));
        }
    }

    #[test]
    fn a_fifo_among_files_is_refused_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f7.raw");
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRUSR).unwrap();
        let text = Opened::open_file(&path).unwrap_err().to_string();
        assert!(text.contains("f7.raw") && text.contains("a FIFO"), "{text}");
        let device = Opened::open_file(Path::new("/dev/null")).unwrap_err();
        assert!(device.to_string().contains("a character device"));
    }
}
