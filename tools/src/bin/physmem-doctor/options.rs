// SPDX-License-Identifier: MPL-2.0
//! The command line.

use clap::{Parser, ValueEnum};

/// Says what this machine has of what the GStreamer plugin physmem needs
///
/// Each line gives a verdict (ok, lack, broken or unknown), the fact, and for a lack the one command or kernel
/// option that mends it. Run it as the user, and in the group and container, that the pipeline will have: what a
/// user may open and see is part of the answer.
///
/// Blocks of memory are allocated and freed again. Framebuffers and display cards are opened and only read, and
/// nothing on the screen changes without --try-display. While a display card is open that no program is master
/// of, it is for a moment this program's.
#[derive(Debug, Parser)]
#[command(
    name = "physmem-doctor",
    version,
    after_help = "Exit status:\n  0  all that was asked for is there\n  1  something is lacking\n  \
                  2  something is broken, or the command line is wrong"
)]
pub struct Options {
    /// Which parts to tell and to judge; all without any
    #[arg(value_enum, value_name = "PART")]
    pub parts: Vec<Part>,

    /// Print items and facts as JSON, whose keys docs/doctor.md describes
    #[arg(long)]
    pub json: bool,

    /// Play a second of test pattern on each framebuffer and on each display card with a display
    ///
    /// This changes what is on the screen.
    #[arg(long)]
    pub try_display: bool,
}

/// A part of the report: the first word of the keys of its items.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Part {
    /// Kernel, architecture, pages
    Kernel,
    /// dma-heaps, udmabuf, huge pages, CMA
    Memory,
    /// What shows physical addresses and pins pages
    Rights,
    /// A real block of each kind of memory
    Allocation,
    /// /dev/fb*
    Framebuffer,
    /// /dev/dri/card*
    Card,
    /// Whether devices see physical addresses
    Iommu,
    /// GStreamer and the plugin
    Gstreamer,
    /// What kind auto and the sinks would take
    Choice,
}

impl Part {
    /// The part's name on the command line and in keys.
    pub fn name(self) -> String {
        self.to_possible_value()
            .map(|value| value.get_name().to_owned())
            .unwrap_or_default()
    }
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
    fn wrong_use_ends_with_status_2() {
        let refused = Options::try_parse_from(["physmem-doctor", "weather"]).unwrap_err();
        assert_eq!(refused.exit_code(), 2);
    }

    #[test]
    fn the_man_page_is_made_of_the_command_line() {
        crate::man_page::is_up_to_date(Options::command());
    }
}
