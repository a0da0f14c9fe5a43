// SPDX-License-Identifier: MPL-2.0
//! Display cards: /dev/dri/card*. sysfs tells connectors and modes without opening a card.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::sync::Arc;

use drm::control::{Device as _, PlaneType, plane};
use drm::{ClientCapability, Device as _, DriverCapability};
use gstphysmem::memory::Region;
use serde::Serialize;

use super::{Node, Root, describe};

#[derive(Clone, Debug, Default, Serialize)]
pub struct Card {
    /// Such as card0.
    pub name: String,
    /// The driver of the hardware, or the hardware's own name if it has no driver.
    pub driver: Option<String>,
    pub node: Option<Node>,
    pub connectors: Vec<Connector>,
    pub report: Option<Report>,
    /// Why there is no report.
    pub error: Option<String>,
}

#[derive(Clone, Debug, Default, Serialize)]
pub struct Connector {
    /// Such as HDMI-A-1.
    pub name: String,
    /// connected, disconnected or unknown
    pub status: String,
    /// Such as 1920x1080, in the kernel's order: the preferred one first.
    pub modes: Vec<String>,
}

/// What the driver tells a program that has the card open.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    /// The name that the driver gives to DRM.
    pub driver: String,
    pub is_atomic: bool,
    /// Whether dma-bufs of other devices can be shown.
    pub imports_dma_bufs: bool,
    /// What it said to a dma-buf of each kind of memory that could be had.
    pub imports: Vec<Import>,
    pub has_dumb_buffers: bool,
    /// Whether no other program shows on the card.
    pub is_master_free: bool,
    pub planes: Vec<Plane>,
}

#[derive(Clone, Debug, Default, Serialize)]
pub struct Import {
    /// The kind of memory, as the property memory-kind names it.
    pub kind: &'static str,
    /// Why the card refuses its dma-buf.
    pub error: Option<String>,
}

#[derive(Clone, Debug, Default, Serialize)]
pub struct Plane {
    pub id: u32,
    /// primary, overlay, cursor or unknown
    pub kind: &'static str,
    /// Fourccs, such as XR24.
    pub formats: Vec<String>,
}

/// The cards of the machine, without opening them.
pub fn list(root: &Root) -> Vec<Card> {
    const CLASS: &str = "sys/class/drm";
    let names = root.names(CLASS);
    let is_card = |name: &String| {
        name.strip_prefix("card")
            .is_some_and(|rest| rest.parse::<u32>().is_ok())
    };
    let connector = |card: &str, entry: &String| {
        let name = entry.strip_prefix(card)?.strip_prefix('-')?;
        // It writes into memory, and has no display.
        if name.starts_with("Writeback-") {
            return None;
        }
        let modes = root.text(format!("{CLASS}/{entry}/modes"));
        Some(Connector {
            name: name.to_owned(),
            status: root.text(format!("{CLASS}/{entry}/status"))?,
            modes: modes
                .unwrap_or_default()
                .lines()
                .map(str::to_owned)
                .collect(),
        })
    };
    let cards = names.iter().filter(|name| is_card(name));
    cards
        .map(|name| Card {
            driver: root
                .link_target(format!("{CLASS}/{name}/device/driver"))
                .or_else(|| root.link_target(format!("{CLASS}/{name}/device"))),
            node: root.node(&format!("dev/dri/{name}")),
            connectors: names
                .iter()
                .filter_map(|entry| connector(name, entry))
                .collect(),
            name: name.clone(),
            ..Card::default()
        })
        .collect()
}

struct Open(File);

impl AsFd for Open {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
impl drm::Device for Open {}
impl drm::control::Device for Open {}

impl Card {
    /// Opens the card and adds what it reports. `dma_bufs` is memory for it to import.
    pub fn open(&mut self, dma_bufs: &[(&'static str, Arc<Region>)]) {
        match Report::of(&format!("/dev/dri/{}", self.name), dma_bufs) {
            Ok(report) => self.report = Some(report),
            Err(error) => self.error = Some(describe(&error)),
        }
    }

    /// Whether a display is plugged in, or may be.
    pub fn may_show(&self) -> bool {
        self.connectors
            .iter()
            .any(|connector| connector.status != "disconnected")
    }
}

impl Report {
    fn of(path: &str, dma_bufs: &[(&'static str, Arc<Region>)]) -> io::Result<Self> {
        const PRIME_IMPORT: u64 = 1;
        let card = Open(
            OpenOptions::new()
                .read(true)
                .write(true)
                .custom_flags(nix::libc::O_CLOEXEC | nix::libc::O_NONBLOCK)
                .open(path)?,
        );
        // Whoever opens a card without a master is its master, and is told so again here. It is given up at
        // once, because neither the console nor fbdev shows anything meanwhile.
        let is_master_free = card.acquire_master_lock().is_ok();
        if is_master_free {
            let _ = card.release_master_lock();
        }
        let driver = card.get_driver()?.name().to_string_lossy().into_owned();
        let value = |capability| card.get_driver_capability(capability).unwrap_or(0);
        let has_all_planes = card.set_client_capability(ClientCapability::UniversalPlanes, true);
        let is_atomic = has_all_planes
            .and_then(|()| card.set_client_capability(ClientCapability::Atomic, true))
            .is_ok();
        let planes = card.plane_handles().unwrap_or_default().into_iter();
        Ok(Self {
            driver,
            is_atomic,
            imports_dma_bufs: value(DriverCapability::Prime) & PRIME_IMPORT != 0,
            imports: dma_bufs
                .iter()
                .filter_map(|(kind, region)| {
                    let error = import(&card, region.dma_buf()?).err();
                    Some(Import {
                        kind,
                        error: error.as_ref().map(describe),
                    })
                })
                .collect(),
            has_dumb_buffers: value(DriverCapability::DumbBuffer) == 1,
            is_master_free,
            planes: planes.filter_map(|plane| Plane::of(&card, plane)).collect(),
        })
    }
}

/// Has the card take the memory of a dma-buf, and give it back. Whether it can be shown is only known when a
/// framebuffer of it is.
fn import(card: &Open, dma_buf: BorrowedFd<'_>) -> io::Result<()> {
    let handle = card.prime_fd_to_buffer(dma_buf)?;
    card.close_buffer(handle)
}

impl Plane {
    fn of(card: &Open, handle: plane::Handle) -> Option<Self> {
        let info = card.get_plane(handle).ok()?;
        Some(Self {
            id: handle.into(),
            kind: kind_of(card, handle).unwrap_or("unknown"),
            formats: info.formats().iter().copied().map(fourcc).collect(),
        })
    }
}

fn kind_of(card: &Open, handle: plane::Handle) -> Option<&'static str> {
    let properties = card.get_properties(handle).ok()?;
    properties.iter().find_map(|(&property, &value)| {
        let property = card.get_property(property).ok()?;
        if property.name().to_bytes() != b"type" {
            return None;
        }
        let kinds = [
            (PlaneType::Primary, "primary"),
            (PlaneType::Overlay, "overlay"),
            (PlaneType::Cursor, "cursor"),
        ];
        let found = kinds.iter().find(|(kind, _)| *kind as u64 == value);
        found.map(|&(_, name)| name)
    })
}

/// The four characters of a fourcc.
fn fourcc(code: u32) -> String {
    code.to_le_bytes()
        .iter()
        .map(|&byte| match byte {
            b' '..=b'~' => char::from(byte),
            _ => '?',
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::tests::record;
    use super::*;

    #[test]
    fn a_recorded_card_has_its_own_connectors() {
        let directory = tempfile::tempdir().unwrap();
        let class = "sys/class/drm";
        record(
            directory.path(),
            &[
                (&format!("{class}/card1/uevent"), ""),
                (&format!("{class}/card1-HDMI-A-1/status"), "connected\n"),
                (
                    &format!("{class}/card1-HDMI-A-1/modes"),
                    "1920x1080\n1280x720\n",
                ),
                (&format!("{class}/card1-Writeback-1/status"), "unknown\n"),
                (&format!("{class}/card10/uevent"), ""),
                (&format!("{class}/card10-DSI-1/status"), "disconnected\n"),
                (&format!("{class}/renderD128/uevent"), ""),
            ],
        );
        let cards = list(&Root::at(directory.path()));
        let found: Vec<_> = cards
            .iter()
            .map(|card| (card.name.as_str(), card.connectors.len(), card.may_show()))
            .collect();
        assert_eq!(found, [("card1", 1, true), ("card10", 1, false)]);
        assert_eq!(cards[0].connectors[0].name, "HDMI-A-1");
        assert_eq!(cards[0].connectors[0].modes, ["1920x1080", "1280x720"]);
    }

    #[test]
    fn a_fourcc_is_four_characters_whatever_it_is() {
        assert_eq!(fourcc(0x3432_5258), "XR24");
        assert_eq!(fourcc(1), "????");
    }
}
