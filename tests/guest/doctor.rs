// SPDX-License-Identifier: MPL-2.0
//! What physmem-doctor says of each display of the lab, and of users with and without rights, is true.
//! Modules are named for the display they need.

mod support;

use std::collections::HashMap;
use std::process::Command;

use support::{Ran, require_lab, run};

/// The items that the program told, by key.
#[derive(Debug)]
struct Told {
    status: i32,
    items: HashMap<String, Item>,
}

#[derive(Debug, Default)]
struct Item {
    verdict: String,
    fact: String,
    remedy: Option<String>,
}

impl Told {
    fn new(ran: &Ran) -> Self {
        let mut items = HashMap::new();
        let mut last = String::new();
        for line in ran.stdout.lines() {
            if let Some(remedy) = line.trim_start().strip_prefix("remedy: ") {
                let item: &mut Item = items.get_mut(&last).expect("an item before its remedy");
                item.remedy = Some(remedy.to_owned());
                continue;
            }
            let mut words = line.split_whitespace();
            let (verdict, key) = (words.next().unwrap(), words.next().unwrap());
            let fact = line.split_once(key).unwrap().1.trim();
            key.clone_into(&mut last);
            items.insert(
                key.to_owned(),
                Item {
                    verdict: verdict.to_owned(),
                    fact: fact.to_owned(),
                    remedy: None,
                },
            );
        }
        Self {
            status: ran.status.code().expect("it ends by itself"),
            items,
        }
    }

    #[track_caller]
    fn item(&self, key: &str) -> &Item {
        let item = self.items.get(key);
        item.unwrap_or_else(|| panic!("no {key} in {:?}", self.items))
    }

    #[track_caller]
    fn assert(&self, key: &str, verdict: &str, words: &[&str]) {
        let item = self.item(key);
        assert_eq!(item.verdict, verdict, "{key}: {item:?}");
        for word in words {
            assert!(item.fact.contains(word), "{key}: not {word:?}: {item:?}");
        }
    }

    #[track_caller]
    fn assert_remedy(&self, key: &str, words: &str) {
        let item = self.item(key);
        let remedy = item.remedy.as_deref().unwrap_or_default();
        assert!(remedy.contains(words), "{key}: not {words:?}: {item:?}");
    }
}

fn doctor(arguments: &str) -> Command {
    let mut command = Command::new(support::tool("physmem-doctor"));
    command.args(arguments.split_whitespace());
    command
}

fn told(command: &mut Command) -> Told {
    let ran = run(command);
    print!("{}{}", ran.stdout, ran.stderr);
    Told::new(&ran)
}

mod none {
    use super::*;

    #[test]
    fn a_machine_without_display_has_memory_with_addresses() {
        require_lab();
        let told = told(&mut doctor(""));
        assert_eq!(told.status, 1);
        told.assert("framebuffer.any", "lack", &["fbpansink"]);
        told.assert("card.any", "lack", &["kmsflipsink"]);
        told.assert("memory.udmabuf", "ok", &["/dev/udmabuf"]);
        told.assert("memory.huge-pages", "lack", &["0 of 0 free"]);
        told.assert_remedy("allocation.hugepage", "vm.nr_hugepages");
        let heap = format!("memory.heap.{}", support::cma_heap());
        told.assert(&heap, "ok", &["contiguous, cached", "root"]);
        told.assert("memory.heap.system", "ok", &["scattered, cached"]);
        told.assert("allocation.normal", "ok", &["(pagemap)", ", pinned"]);
        told.assert("allocation.udmabuf", "ok", &["(pagemap)"]);
        told.assert("allocation.cma", "ok", &["contiguous, pinned"]);
        told.assert("allocation.system", "ok", &["no address"]);
        told.assert("choice.memory", "ok", &["kind auto is cma"]);
        told.assert("kernel.large-pages", "ok", &["MADV_COLLAPSE"]);
        told.assert("iommu.groups", "ok", &["no IOMMU"]);
        told.assert("gstreamer.plugin", "ok", &["libgstphysmem.so"]);
        told.assert("choice.fbpansink", "unknown", &[]);
    }

    #[test]
    fn root_lacks_no_right() {
        require_lab();
        let told = told(&mut doctor("rights"));
        assert_eq!(told.status, 0, "{told:?}");
        assert_eq!(told.items.len(), 5, "{told:?}");
    }

    #[test]
    fn nobody_is_told_what_is_missing_and_the_remedies_help() {
        require_lab();
        let before = told(&mut support::as_nobody(&doctor("rights memory allocation")));
        assert_eq!(before.status, 1);
        before.assert("rights.pagemap", "lack", &["without CAP_SYS_ADMIN"]);
        before.assert_remedy("rights.pagemap", "--ambient-caps +sys_admin");
        before.assert("allocation.normal", "lack", &["no address"]);
        let heap = format!("memory.heap.{}", support::cma_heap());
        before.assert(&heap, "lack", &["root:root 0600", "not for nobody"]);
        before.assert("allocation.system", "ok", &["takes it by itself"]);
        before.assert("allocation.cma", "lack", &["Permission denied (EACCES)"]);
        before.assert("memory.udmabuf", "lack", &["not for nobody"]);

        // The remedy as it is written, by root in place of sudo.
        let remedy = before.item("rights.pagemap").remedy.clone().unwrap();
        let words = remedy.strip_prefix("sudo ").expect("root has no sudo");
        let words = words.strip_suffix(" PROGRAM").expect("a program follows");
        let mut words = words.split_whitespace();
        let program = doctor("rights");
        let mut command = Command::new(words.next().unwrap());
        command
            .args(words)
            .arg(program.get_program())
            .args(program.get_args());
        let after = told(&mut command);
        after.assert("rights.pagemap", "ok", &["an own page is at 0x"]);
    }

    #[test]
    fn io_uring_that_is_switched_off_is_told_with_the_switch() {
        require_lab();
        const SWITCH: &str = "/proc/sys/kernel/io_uring_disabled";
        if !std::path::Path::new(SWITCH).exists() {
            return support::skip("kernel.io_uring_disabled came with Linux 6.6");
        }
        std::fs::write(SWITCH, "2").unwrap();
        let off = told(&mut doctor("rights allocation"));
        std::fs::write(SWITCH, "0").unwrap();
        off.assert("rights.io-uring", "lack", &["EPERM", "is 2"]);
        off.assert_remedy("rights.io-uring", "sysctl kernel.io_uring_disabled=0");
        off.assert("allocation.normal", "ok", &["not pinned"]);
        let on = told(&mut doctor("rights"));
        on.assert("rights.io-uring", "ok", &[]);
    }

    #[test]
    fn wrong_use_is_told_with_status_2() {
        require_lab();
        let ran = run(&mut doctor("--no-such-option"));
        assert_eq!(ran.status.code(), Some(2));
        assert!(ran.stderr.contains("--no-such-option"), "{}", ran.stderr);
    }
}

mod cirrus {
    use super::*;

    #[test]
    fn the_framebuffer_is_described_and_left_alone() {
        require_lab();
        let shown = support::oracle().shot();
        let told = told(&mut doctor("framebuffer card choice"));
        support::oracle().shot().assert_same_as(&shown);
        let name = std::fs::read_to_string("/sys/class/graphics/fb0/name").unwrap();
        told.assert(
            "framebuffer.fb0",
            "ok",
            &[name.trim(), "640x480, 24 bits a pixel"],
        );
        told.assert("card.any", "lack", &[]);
        told.assert("choice.fbpansink", "ok", &["/dev/fb0"]);
    }

    #[test]
    fn the_framebuffer_is_played_on_when_that_is_asked_for() {
        require_lab();
        let told = told(&mut doctor("framebuffer choice --try-display"));
        assert_eq!(told.status, 0, "{told:?}");
        told.assert(
            "choice.fbpansink.fb0",
            "ok",
            &["shown 30, zero-copy 30, copied 0: zero-copy: "],
        );
    }
}

mod vkms {
    use super::*;

    #[test]
    fn framebuffer_and_card_are_described() {
        require_lab();
        let told = told(&mut doctor("framebuffer card choice"));
        assert_eq!(told.status, 0, "{told:?}");
        told.assert(
            "framebuffer.fb0",
            "ok",
            &["vkmsdrmfb", "fb_pages: 3 now, 3 fit"],
        );
        told.assert(
            "card.card0",
            "ok",
            &[
                "vkms, atomic, imports dma-bufs of cma, system, udmabuf;",
                "1 primary (",
                "XR24",
                "no program shows on it",
            ],
        );
        told.assert(
            "card.card0.connectors",
            "ok",
            &["Virtual-1 connected (1024x768"],
        );
        told.assert("choice.kmsflipsink", "ok", &["kind cma on card0"]);
    }

    #[test]
    fn what_is_on_the_screen_stays() {
        require_lab();
        let before = support::VkmsCrc::current();
        told(&mut doctor(""));
        assert_eq!(support::VkmsCrc::current(), before);
    }

    #[test]
    fn another_master_is_told() {
        require_lab();
        let master = std::fs::OpenOptions::new()
            .read(true)
            .write(true)
            .open("/dev/dri/card0")
            .unwrap();
        let told = told(&mut doctor("card"));
        assert_eq!(told.status, 1);
        told.assert("card.card0", "lack", &["another program shows on it"]);
        drop(master);
    }

    #[test]
    fn both_sinks_play_without_a_copy() {
        require_lab();
        let told = told(&mut doctor("choice --try-display"));
        assert_eq!(told.status, 0, "{told:?}");
        for key in ["choice.fbpansink.fb0", "choice.kmsflipsink.card0"] {
            told.assert(key, "ok", &["zero-copy 30, copied 0"]);
        }
    }
}
