// SPDX-License-Identifier: MPL-2.0
//! What is found on the machine.
//!
//! Files of /proc, /sys and /dev are read below a [`Root`]. What only a system call tells (allocations, open
//! devices, GStreamer) is of the running machine.

pub mod allocation;
pub mod card;
pub mod choice;
pub mod framebuffer;
pub mod gstreamer;
pub mod iommu;
pub mod kernel;
pub mod memory;
pub mod rights;
mod root;

use serde::Serialize;

pub use root::{Node, Root};

/// All facts. Field names are keys of the JSON.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Facts {
    pub kernel: kernel::Kernel,
    pub memory: memory::Memory,
    pub rights: rights::Rights,
    pub allocations: Vec<allocation::Allocation>,
    pub framebuffers: Vec<framebuffer::Framebuffer>,
    pub consoles: Vec<framebuffer::Console>,
    pub cards: Vec<card::Card>,
    pub iommu: iommu::Iommu,
    pub gstreamer: gstreamer::Gstreamer,
    /// Empty unless the displays were tried.
    pub played: Vec<choice::Played>,
}

impl Facts {
    /// The facts that files tell.
    pub fn of_files(root: &Root) -> Self {
        Self {
            kernel: kernel::Kernel::read(root),
            memory: memory::Memory::read(root),
            rights: rights::Rights::read(root),
            framebuffers: framebuffer::list(root),
            consoles: framebuffer::consoles(root),
            cards: card::list(root),
            iommu: iommu::Iommu::read(root),
            ..Self::default()
        }
    }

    /// All facts of the running machine.
    pub fn of_this_machine(tries_displays: bool) -> Self {
        let mut facts = Self::of_files(&Root::machine());
        facts.rights.ask_kernel();
        for framebuffer in &mut facts.framebuffers {
            framebuffer.inspect();
        }
        facts.gstreamer = gstreamer::Gstreamer::start();
        let starts = facts.gstreamer.error.is_none();
        let dma_bufs = match starts {
            true => allocation::dma_bufs(),
            false => Vec::new(),
        };
        for card in &mut facts.cards {
            card.open(&dma_bufs);
        }
        drop(dma_bufs);
        if starts {
            facts.allocations = allocation::one_of_each_kind();
            facts.kernel.makes_large_pages = allocation::has_large_pages();
            if tries_displays {
                facts.played = choice::play(&facts);
            }
        }
        facts
    }
}

/// "Permission denied (EACCES)".
fn describe(error: &std::io::Error) -> String {
    match error.raw_os_error().map(nix::errno::Errno::from_raw) {
        Some(errno) => format!("{} ({errno:?})", errno.desc()),
        None => error.to_string(),
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use crate::fuzzing::FILES;
    use proptest::prelude::*;
    use std::path::Path;

    /// Writes files below a directory, with the directories on the way.
    pub fn record(root: &Path, files: &[(&str, &str)]) {
        for (name, text) in files {
            let path = root.join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn hostile_files_are_read_without_a_panic(
            contents in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), FILES.len()),
            name in "[^/\0]{1,20}",
        ) {
            prop_assume!(name != "." && name != "..");
            let directory = tempfile::tempdir().unwrap();
            for (file, bytes) in FILES.iter().zip(&contents) {
                let path = directory.path().join(file.replace('*', &name));
                std::fs::create_dir_all(path.parent().unwrap()).unwrap();
                std::fs::write(path, bytes).unwrap();
            }
            let facts = Facts::of_files(&Root::at(directory.path()));
            let items = crate::judge::all(&facts);
            prop_assert!(items.iter().all(|item| !item.fact.contains('\n')));
        }

        #[test]
        fn numbers_of_any_size_are_judged_without_a_panic(
            number in prop_oneof![any::<u64>().prop_map(|n| n.to_string()), "-?[0-9]{1,40}"],
        ) {
            let directory = tempfile::tempdir().unwrap();
            let meminfo = format!("CmaTotal: {number} kB\nCmaFree: {number} kB\n");
            let status = format!("CapEff:\t{number}\nSeccomp:\t{number}\n");
            let pool = "sys/kernel/mm/hugepages/hugepages-";
            record(directory.path(), &[
                ("proc/meminfo", &meminfo),
                ("proc/self/status", &status),
                ("proc/self/uid_map", &number),
                ("proc/sys/kernel/perf_event_paranoid", &number),
                ("proc/sys/kernel/io_uring_disabled", &number),
                ("proc/sys/kernel/osrelease", &format!("{number}.{number}")),
                (&format!("{pool}{number}kB/free_hugepages"), &number),
                (&format!("{pool}{number}kB/nr_hugepages"), &number),
            ]);
            crate::judge::all(&Facts::of_files(&Root::at(directory.path())));
        }
    }

    #[test]
    fn facts_of_the_running_machine_are_there() {
        let facts = Facts::of_files(&Root::machine());
        assert!(facts.kernel.release.is_some());
        assert!(facts.kernel.page_bytes >= 4096);
        assert!(facts.rights.is_in_initial_user_namespace.is_some());
    }
}
