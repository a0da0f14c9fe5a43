// SPDX-License-Identifier: MPL-2.0
//! Framebuffers and display cards, and what the sinks would do on them.

use super::to_open;
use crate::facts::Facts;
use crate::facts::card::{self, Card};
use crate::facts::choice::Played;
use crate::facts::framebuffer::{self, Framebuffer};
use crate::item::Item;

/// The kernel parameter that gives framebuffers of DRM drivers three screenfuls.
const OVERALLOC: &str = "drm_kms_helper.drm_fbdev_overalloc=300 on the kernel command line";

pub fn framebuffers(facts: &Facts) -> Vec<Item> {
    if facts.framebuffers.is_empty() {
        let remedy = match facts.cards.is_empty() {
            true => "a driver of the display (modprobe, or the kernel option CONFIG_FB_...)",
            false => "kernel option CONFIG_DRM_FBDEV_EMULATION=y",
        };
        return vec![Item::lack(
            "framebuffer.any",
            "no /dev/fb*: nothing for fbpansink",
            remedy.to_owned(),
        )];
    }
    let each = facts.framebuffers.iter();
    let each = each.map(|one| framebuffer(facts, one));
    each.chain([console(facts)]).collect()
}

/// Whether the kernel draws on framebuffers, too.
fn console(facts: &Facts) -> Item {
    let drawing = facts
        .consoles
        .iter()
        .find(|one| one.draws_on_framebuffers());
    let fact = match drawing {
        Some(console) => format!(
            "the kernel's console draws on a framebuffer ({}), and fbpansink keeps it quiet while it plays, \
             if it may open the terminal",
            console.name
        ),
        None => "the kernel's console draws on no framebuffer".to_owned(),
    };
    Item::ok("framebuffer.console", fact)
}

fn framebuffer(facts: &Facts, one: &Framebuffer) -> Item {
    let key = format!("framebuffer.{}", one.name);
    let driver = one.driver.as_deref().unwrap_or("driver without a name");
    let Some(report) = &one.report else {
        let error = one.error.as_deref().unwrap_or("not opened");
        let remedy = one
            .node
            .as_ref()
            .filter(|node| !node.may_open)
            .map(|node| to_open(node, &facts.rights.user));
        return Item::lack(key, format!("{driver}: {error}"), remedy);
    };
    let fact = format!("{driver}, {}", size_and_pages(report));
    if let Some(error) = &report.format_error {
        return Item::lack(
            key,
            format!("{fact}: {error}"),
            Some("fbset -depth 32".to_owned()),
        );
    }
    if report.is_pan_broken {
        return Item::broken(
            key,
            format!("{fact}; the driver accepts pans and does not show them, so one page is used"),
            Some("kmsflipsink in place of fbpansink".to_owned()),
        );
    }
    if report.pan_step_px == 0 {
        return Item::lack(
            key,
            format!("{fact}; it cannot pan, so frames may tear"),
            None,
        );
    }
    match report.fb_pages_that_fit {
        1 if one.is_of_drm() => Item::lack(
            key,
            format!("{fact}; one page, so frames may tear"),
            Some(OVERALLOC.to_owned()),
        ),
        1 => Item::lack(
            key,
            format!("{fact}; its memory holds one page, so frames may tear"),
            None,
        ),
        _ => Item::ok(key, fact),
    }
}

fn size_and_pages(report: &framebuffer::Report) -> String {
    let format = match &report.format {
        Some(format) => format!(" {format}"),
        None => String::new(),
    };
    let fit = match report.fb_pages_that_fit {
        0 => "no mode is set yet, so fb_pages are not known".to_owned(),
        fit => format!(
            "fb_pages: {} now, {fit} fit into its memory",
            report.fb_pages
        ),
    };
    let vsync = match report.has_vsync {
        true => "it tells the vertical blank",
        false => "it does not tell the vertical blank",
    };
    format!(
        "{}x{}, {} bits a pixel{format}, {} lines in all; {fit}; pan step {}; {vsync}",
        report.width_px,
        report.height_px,
        report.bits_per_pixel,
        report.virtual_height_px,
        report.pan_step_px
    )
}

pub fn cards(facts: &Facts) -> Vec<Item> {
    if facts.cards.is_empty() {
        return vec![Item::lack(
            "card.any",
            "no /dev/dri/card*: nothing for kmsflipsink",
            "a DRM driver of the display (modprobe, or the kernel option CONFIG_DRM_...)"
                .to_owned(),
        )];
    }
    let each = facts.cards.iter();
    each.flat_map(|card| [one_card(facts, card), connectors(card)])
        .collect()
}

fn one_card(facts: &Facts, card: &Card) -> Item {
    let key = format!("card.{}", card.name);
    let Some(report) = &card.report else {
        let driver = card.driver.as_deref().unwrap_or("unknown driver");
        let error = card.error.as_deref().unwrap_or("not opened");
        let remedy = card
            .node
            .as_ref()
            .filter(|node| !node.may_open)
            .map(|node| to_open(node, &facts.rights.user));
        return Item::lack(key, format!("{driver}: {error}"), remedy);
    };
    let fact = format!(
        "{}, {}, {}; {}",
        report.driver,
        match report.is_atomic {
            true => "atomic",
            false => "not atomic",
        },
        imports(report),
        planes(report)
    );
    if !report.is_atomic {
        return Item::lack(
            key,
            format!("{fact}: kmsflipsink does not work with it"),
            Some("kmssink or fbpansink in place of kmsflipsink".to_owned()),
        );
    }
    match report.is_master_free {
        true => Item::ok(key, format!("{fact}; no program shows on it")),
        false => Item::lack(
            key,
            format!("{fact}; another program shows on it and is its master"),
            Some("sudo systemctl isolate multi-user.target".to_owned()),
        ),
    }
}

fn imports(report: &card::Report) -> String {
    if !report.imports_dma_bufs {
        return "does not import dma-bufs, so only its own buffers are shown without a copy"
            .to_owned();
    }
    let (refused, taken): (Vec<_>, Vec<_>) =
        report.imports.iter().partition(|one| one.error.is_some());
    let taken: Vec<_> = taken.iter().map(|one| one.kind).collect();
    let refused: Vec<_> = refused
        .iter()
        .map(|one| {
            format!(
                "{} ({})",
                one.kind,
                one.error.as_deref().unwrap_or_default()
            )
        })
        .collect();
    match (taken.as_slice(), refused.as_slice()) {
        // Nothing was there to be tried.
        ([], []) => "imports dma-bufs".to_owned(),
        (taken, []) => format!("imports dma-bufs of {}", taken.join(", ")),
        ([], refused) => format!(
            "refuses dma-bufs of {}, so only its own buffers are shown without a copy",
            refused.join(", ")
        ),
        (taken, refused) => format!(
            "imports dma-bufs of {}, not of {}",
            taken.join(", "),
            refused.join(", ")
        ),
    }
}

fn planes(report: &card::Report) -> String {
    let each = |kind: &str| {
        let of_kind: Vec<_> = report
            .planes
            .iter()
            .filter(|plane| plane.kind == kind)
            .collect();
        let mut formats: Vec<&str> = of_kind
            .iter()
            .flat_map(|plane| plane.formats.iter().map(String::as_str))
            .collect();
        formats.sort_unstable();
        formats.dedup();
        match of_kind.len() {
            0 => None,
            number => Some(format!("{number} {kind} ({})", formats.join(" "))),
        }
    };
    let kinds = ["primary", "overlay", "cursor", "unknown"];
    let told: Vec<_> = kinds.into_iter().filter_map(each).collect();
    match told.as_slice() {
        [] => "no planes".to_owned(),
        told => format!("planes: {}", told.join(", ")),
    }
}

fn connectors(card: &Card) -> Item {
    let key = format!("card.{}.connectors", card.name);
    let each: Vec<_> = card
        .connectors
        .iter()
        .map(|connector| {
            let modes = match connector.modes.as_slice() {
                [] => String::new(),
                [first] => format!(" ({first})"),
                [first, rest @ ..] => format!(" ({first} and {} more modes)", rest.len()),
            };
            format!("{} {}{modes}", connector.name, connector.status)
        })
        .collect();
    match (each.as_slice(), card.may_show()) {
        ([], _) => Item::ok(
            key,
            "no connectors: the card shows nothing, it only computes",
        ),
        (each, true) => Item::ok(key, each.join("; ")),
        (each, false) => Item::lack(
            key,
            format!("{}: no display", each.join("; ")),
            Some("plug a display in (or video=CONNECTOR:e on the kernel command line)".to_owned()),
        ),
    }
}

/// What the sinks take, or did.
pub fn choices(facts: &Facts) -> Vec<Item> {
    if !facts.played.is_empty() {
        return facts.played.iter().map(played).collect();
    }
    vec![of_fbpansink(facts), of_kmsflipsink(facts)]
}

fn played(played: &Played) -> Item {
    let name = played.device.rsplit('/').next().unwrap_or_default();
    let key = format!("choice.{}.{name}", played.sink);
    match &played.error {
        Some(error) => Item::broken(key, error.clone(), None),
        None if played.shown == 0 => Item::broken(key, "no frame was shown", None),
        None => Item::ok(
            key,
            format!(
                "shown {}, zero-copy {}, copied {}: {}",
                played.shown,
                played.zero_copy,
                played.copied,
                played.path.as_deref().unwrap_or_default()
            ),
        ),
    }
}

fn of_fbpansink(facts: &Facts) -> Item {
    const KEY: &str = "choice.fbpansink";
    let usable = facts.framebuffers.iter().find(|one| {
        one.report
            .as_ref()
            .is_some_and(|report| report.format.is_some())
    });
    match usable {
        Some(one) => Item::ok(
            KEY,
            format!(
                "rawvideosrc ! fbpansink: the pages of /dev/{} (--try-display plays there)",
                one.name
            ),
        ),
        None => Item::unknown(KEY, "no framebuffer to show on"),
    }
}

/// The first of cma, udmabuf and dumb, as far as it can be told without the card's word on a framebuffer.
fn of_kmsflipsink(facts: &Facts) -> Item {
    const KEY: &str = "choice.kmsflipsink";
    let usable = facts.cards.iter().find_map(|card| {
        let report = card.report.as_ref().filter(|report| report.is_atomic)?;
        card.may_show().then_some((&card.name, report))
    });
    let Some((name, report)) = usable else {
        return Item::unknown(KEY, "no card to show on");
    };
    let can_have = |kind: &&str| {
        let made = facts.allocations.iter().find(|made| made.kind == *kind);
        made.is_some_and(|made| made.block.is_some())
    };
    let imported = ["cma", "udmabuf"].iter().copied();
    let is_refused = |kind: &&str| {
        let tried = report.imports.iter().find(|one| one.kind == *kind);
        tried.is_some_and(|one| one.error.is_some())
    };
    let first = imported
        .filter(|kind| report.imports_dma_bufs && !is_refused(kind))
        .find(can_have)
        .unwrap_or("dumb");
    Item::ok(
        KEY,
        format!(
            "rawvideosrc ! kmsflipsink: memory of kind {first} on {name}, unless the card refuses it \
             (--try-display plays there)"
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::Node;
    use crate::facts::allocation::{Allocation, Block};
    use crate::item::Verdict;

    fn fb(change: impl Fn(&mut framebuffer::Report)) -> Facts {
        let mut report = framebuffer::Report {
            width_px: 640,
            height_px: 480,
            virtual_height_px: 1440,
            bits_per_pixel: 32,
            fb_pages: 3,
            fb_pages_that_fit: 3,
            pan_step_px: 1,
            format: Some("BGRx".into()),
            ..Default::default()
        };
        change(&mut report);
        Facts {
            framebuffers: vec![Framebuffer {
                name: "fb0".into(),
                driver: Some("vkmsdrmfb".into()),
                report: Some(report),
                ..Framebuffer::default()
            }],
            ..Facts::default()
        }
    }

    fn of_fb(change: impl Fn(&mut framebuffer::Report)) -> Item {
        framebuffers(&fb(change)).remove(0)
    }

    #[test]
    fn a_framebuffer_is_judged_by_its_pages() {
        assert_eq!(of_fb(|_| ()).verdict, Verdict::Ok);
        let single = of_fb(|report| report.fb_pages_that_fit = 1);
        assert!(single.remedy.unwrap().contains("overalloc"));
        assert_eq!(
            of_fb(|report| report.pan_step_px = 0).verdict,
            Verdict::Lack
        );
        assert_eq!(
            of_fb(|report| report.is_pan_broken = true).verdict,
            Verdict::Broken
        );
        let palette = of_fb(|report| report.format_error = Some("palette".into()));
        assert_eq!(palette.verdict, Verdict::Lack);
    }

    #[test]
    fn a_framebuffer_that_does_not_open_names_its_group() {
        let mut facts = fb(|_| ());
        facts.rights.user = "me".into();
        let one = &mut facts.framebuffers[0];
        one.report = None;
        one.error = Some("Permission denied (EACCES)".into());
        one.node = Some(Node {
            group: 44,
            group_name: Some("video".into()),
            mode: 0o660,
            ..Node::default()
        });
        let item = framebuffers(&facts).remove(0);
        assert_eq!(item.remedy.unwrap(), "sudo usermod -aG video me");
    }

    fn with_card(change: impl Fn(&mut Card, &mut card::Report)) -> Facts {
        let mut report = card::Report {
            driver: "vkms".into(),
            is_atomic: true,
            imports_dma_bufs: true,
            imports: Vec::new(),
            has_dumb_buffers: true,
            is_master_free: true,
            planes: vec![card::Plane {
                id: 1,
                kind: "primary",
                formats: vec!["XR24".into(), "AR24".into()],
            }],
        };
        let mut card = Card {
            name: "card0".into(),
            connectors: vec![card::Connector {
                name: "Virtual-1".into(),
                status: "connected".into(),
                modes: vec!["1024x768".into(), "640x480".into()],
            }],
            ..Card::default()
        };
        change(&mut card, &mut report);
        card.report = Some(report);
        Facts {
            cards: vec![card],
            ..Facts::default()
        }
    }

    #[test]
    fn a_card_is_judged_by_atomic_and_master() {
        let item = |change: fn(&mut Card, &mut card::Report)| cards(&with_card(change)).remove(0);
        let good = item(|_, _| ());
        assert_eq!(good.verdict, Verdict::Ok);
        assert!(good.fact.contains("1 primary (AR24 XR24)"), "{}", good.fact);
        let old = item(|_, report| report.is_atomic = false);
        assert!(old.remedy.unwrap().contains("kmssink"));
        let taken = item(|_, report| report.is_master_free = false);
        assert_eq!(taken.verdict, Verdict::Lack);
    }

    #[test]
    fn what_a_card_imports_is_told_by_kind() {
        let told = |imports: &[(&'static str, Option<&str>)]| {
            let facts = with_card(|_, report| {
                let each = imports.iter().map(|(kind, error)| card::Import {
                    kind,
                    error: error.map(str::to_owned),
                });
                report.imports = each.collect();
            });
            cards(&facts).remove(0).fact
        };
        assert!(told(&[]).contains(", imports dma-bufs; "));
        let some = told(&[("cma", None), ("system", None), ("udmabuf", Some("EINVAL"))]);
        let words = "imports dma-bufs of cma, system, not of udmabuf (EINVAL); ";
        assert!(some.contains(words), "{some}");
        let none = told(&[("cma", Some("ENODEV")), ("system", Some("ENODEV"))]);
        let words = ", refuses dma-bufs of cma (ENODEV), system (ENODEV), so only its own buffers";
        assert!(none.contains(words), "{none}");
    }

    #[test]
    fn a_console_on_the_framebuffer_is_told() {
        let mut facts = fb(|_| ());
        let told = |facts: &Facts| framebuffers(facts).remove(1);
        assert!(told(&facts).fact.contains("draws on no framebuffer"));
        facts.consoles = vec![framebuffer::Console {
            name: "vtcon1".into(),
            driver: "(M) frame buffer device".into(),
            is_bound: true,
        }];
        let item = told(&facts);
        assert!(item.fact.contains("(vtcon1)"), "{}", item.fact);
        assert_eq!(item.verdict, Verdict::Ok);
    }

    #[test]
    fn connectors_are_told_with_their_modes() {
        let item = cards(&with_card(|_, _| ())).remove(1);
        assert_eq!(item.fact, "Virtual-1 connected (1024x768 and 1 more modes)");
        let dark = with_card(|card, _| card.connectors[0].status = "disconnected".into());
        assert_eq!(cards(&dark)[1].verdict, Verdict::Lack);
        let render = with_card(|card, _| card.connectors.clear());
        assert_eq!(cards(&render)[1].verdict, Verdict::Ok);
    }

    #[test]
    fn kmsflipsink_takes_the_first_kind_that_can_be_had() {
        let mut facts = with_card(|_, _| ());
        let kind = |facts: &Facts| choices(facts)[1].fact.clone();
        assert!(kind(&facts).contains("kind dumb"));
        let made = |kind| Allocation {
            kind,
            block: Some(Block::default()),
            ..Allocation::default()
        };
        facts.allocations = vec![made("udmabuf")];
        assert!(kind(&facts).contains("kind udmabuf"));
        facts.allocations.push(made("cma"));
        assert!(kind(&facts).contains("kind cma"));
        let refused = card::Import {
            kind: "cma",
            error: Some("EINVAL".into()),
        };
        facts.cards[0].report.as_mut().unwrap().imports = vec![refused];
        assert!(kind(&facts).contains("kind udmabuf"));
        facts.cards[0].report.as_mut().unwrap().imports_dma_bufs = false;
        assert!(kind(&facts).contains("kind dumb"));
    }

    #[test]
    fn what_was_played_is_told_in_place_of_a_guess() {
        let mut facts = with_card(|_, _| ());
        facts.played = vec![
            Played {
                sink: "kmsflipsink",
                device: "/dev/dri/card0".into(),
                shown: 30,
                zero_copy: 30,
                ..Played::default()
            },
            Played {
                sink: "fbpansink",
                device: "/dev/fb0".into(),
                error: Some("busy".into()),
                ..Played::default()
            },
        ];
        let items = choices(&facts);
        assert_eq!(items[0].key, "choice.kmsflipsink.card0");
        assert_eq!(items[0].verdict, Verdict::Ok);
        assert_eq!(items[1].verdict, Verdict::Broken);
    }
}
