// SPDX-License-Identifier: MPL-2.0
//! The command line, and the socket that it means.

use std::path::{Path, PathBuf};

use clap::Parser;
use gstphysmem::tracer::protocol::{default_directory, pid_of, socket_name};

/// Shows what the GStreamer plugin physmem does in a running pipeline
///
/// For each element: frames, frames a second, copies and their reason, and the time from hand-over to screen. For
/// each pool: who fills its buffers, and for each buffer its state, the element that it went into last, and its
/// physical address. The process must have been started with GST_TRACERS="physmem(socket=auto)", by the same user.
///
/// Keys: up and down, page up and down, home; q ends the program, and the pipeline plays on.
#[derive(Debug, Parser)]
#[command(name = "physmem-top", version)]
pub struct Options {
    /// The socket of the tracer, or the process that has it (default: the latest in the runtime directory)
    #[arg(value_name = "SOCKET|PID")]
    pub process: Option<String>,
    /// Watch for one second, print what there is as text, and end
    #[arg(long)]
    pub once: bool,
}

/// The directory in which the tracer puts its socket with `socket=auto`.
pub fn directory() -> PathBuf {
    let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
    let uid = nix::unistd::getuid().as_raw();
    default_directory(runtime.as_deref(), uid, Path::is_dir)
}

/// The sockets to try, in this order.
///
/// # Errors
/// There is none; the text says where, and what to do.
pub fn candidates(process: Option<&str>, directory: &Path) -> Result<Vec<PathBuf>, String> {
    match process {
        Some(process) => Ok(vec![match process.parse() {
            Ok(pid) => directory.join(socket_name(pid)),
            Err(_) => process.into(),
        }]),
        None => {
            let there = sockets(directory);
            match there.is_empty() {
                false => Ok(there),
                true => Err(format!(
                    "no socket of the tracer in {}: start the pipeline with GST_TRACERS=\"physmem(socket=auto)\", or name its socket",
                    directory.display()
                )),
            }
        }
    }
}

/// The sockets of a directory, that of the latest process first.
fn sockets(directory: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory).into_iter().flatten();
    let mut found: Vec<_> = entries
        .filter_map(|entry| {
            let entry = entry.ok()?;
            pid_of(entry.file_name().to_str()?)?;
            let modified = entry.metadata().ok()?.modified().ok()?;
            Some((modified, entry.path()))
        })
        .collect();
    found.sort();
    found.into_iter().rev().map(|(_, path)| path).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Options::command().debug_assert();
    }

    #[test]
    fn the_man_page_is_made_of_the_command_line() {
        crate::man_page::is_up_to_date(Options::command());
    }

    #[test]
    fn a_number_is_a_process_and_all_else_a_path() {
        let directory = Path::new("/run/x");
        let one = |process| candidates(Some(process), directory).unwrap();
        assert_eq!(one("12"), [Path::new("/run/x/physmem-12.sock")]);
        assert_eq!(one("/tmp/a.sock"), [Path::new("/tmp/a.sock")]);
    }

    #[test]
    fn without_an_argument_the_sockets_of_the_directory_are_tried() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        let none = candidates(None, path).unwrap_err();
        assert!(none.contains("GST_TRACERS"), "{none}");
        for name in ["physmem-3.sock", "other.sock", "physmem-x.sock"] {
            std::fs::write(path.join(name), "").unwrap();
        }
        assert_eq!(
            candidates(None, path).unwrap(),
            [path.join("physmem-3.sock")]
        );
    }
}
