// SPDX-License-Identifier: MPL-2.0
//! The files in packaging/ are enough for a user without privileges: pipelines play with the groups of
//! 60-physmem.rules, and addresses are known with the capabilities of physmem-kiosk.service. The guest has
//! neither udev nor systemd; this file reads the parts of their formats that the two files use, and
//! setpriv takes the place of systemd. The unit's sandbox is not tested. Modules are named for the display.

mod support;

use std::collections::HashMap;
use std::ffi::CString;
use std::fs;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;

use gstphysmem::memory::{MemoryKind, Region, Request};
use support::player::Player;
use support::{Ran, require_lab, run};

const RULES: &str = include_str!("../../packaging/udev/60-physmem.rules");
const UNIT: &str = include_str!("../../packaging/systemd/physmem-kiosk.service");
const CHILD: &str = "PHYSMEM_TEST_PACKAGING";

/// A line of a rules file.
#[derive(Debug)]
struct Rule {
    /// Key of udev, whether it must match, and the patterns of which one does.
    matches: Vec<(String, bool, Vec<String>)>,
    assignments: HashMap<String, String>,
}

/// The rules of the file, in its order. Fails for anything but `KEY==`, `KEY!=` and `KEY=`.
fn rules() -> Vec<Rule> {
    let lines = RULES.lines().map(str::trim);
    lines
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(|line| {
            let mut rule = Rule {
                matches: Vec::new(),
                assignments: HashMap::new(),
            };
            for part in line.split(", ") {
                let key: String = part
                    .chars()
                    .take_while(|c| c.is_ascii_alphabetic())
                    .collect();
                let (operator, value) = part[key.len()..].split_once('"').expect(line);
                let value = value.strip_suffix('"').expect(line);
                let patterns = || value.split('|').map(str::to_owned).collect();
                match operator {
                    "==" => rule.matches.push((key, true, patterns())),
                    "!=" => rule.matches.push((key, false, patterns())),
                    "=" => drop(rule.assignments.insert(key, value.to_owned())),
                    other => panic!("{other} in {line}"),
                }
            }
            rule
        })
        .collect()
}

/// A device with its values of udev's keys SUBSYSTEM and KERNEL.
struct Device {
    subsystem: String,
    kernel: String,
    node: PathBuf,
}

/// The devices of the classes that the rules name.
fn devices() -> Vec<Device> {
    let mut found = Vec::new();
    for subsystem in ["dma_heap", "misc", "graphics", "drm"] {
        let class = Path::new("/sys/class").join(subsystem);
        for entry in fs::read_dir(class).into_iter().flatten().flatten() {
            let uevent = fs::read_to_string(entry.path().join("uevent")).unwrap_or_default();
            let name = uevent
                .lines()
                .find_map(|line| line.strip_prefix("DEVNAME="));
            found.extend(name.map(|name| Device {
                subsystem: subsystem.to_owned(),
                kernel: entry.file_name().into_string().unwrap(),
                node: Path::new("/dev").join(name),
            }));
        }
    }
    found
}

impl Rule {
    fn is_for(&self, device: &Device) -> bool {
        self.matches.iter().all(|(key, must_match, patterns)| {
            let value = match key.as_str() {
                "SUBSYSTEM" => &device.subsystem,
                "KERNEL" => &device.kernel,
                other => panic!("key {other}"),
            };
            patterns.iter().any(|pattern| is_like(value, pattern)) == *must_match
        })
    }
}

/// Whether the text matches the pattern by fnmatch, which udev uses.
fn is_like(text: &str, pattern: &str) -> bool {
    let (text, pattern) = (CString::new(text).unwrap(), CString::new(pattern).unwrap());
    // SAFETY: two C strings that live until the call returns.
    unsafe { libc::fnmatch(pattern.as_ptr(), text.as_ptr(), 0) == 0 }
}

/// Gives the devices of this machine the owners that the rules say.
fn apply_rules() {
    let rules = rules();
    for device in devices() {
        for rule in rules.iter().filter(|rule| rule.is_for(&device)) {
            let group = &rule.assignments["GROUP"];
            let group = nix::unistd::Group::from_name(group).unwrap().expect(group);
            let mode = u32::from_str_radix(&rule.assignments["MODE"], 8).unwrap();
            chown(&device.node, None, Some(group.gid.as_raw())).unwrap();
            fs::set_permissions(&device.node, fs::Permissions::from_mode(mode)).unwrap();
        }
    }
}

/// Makes the devices that the rules name root's again, as the kernel made them.
fn undo_rules() {
    let rules = rules();
    for device in devices() {
        if rules.iter().any(|rule| rule.is_for(&device)) {
            chown(&device.node, None, Some(0)).unwrap();
            fs::set_permissions(&device.node, fs::Permissions::from_mode(0o600)).unwrap();
        }
    }
}

/// The value of a setting of the unit.
#[track_caller]
fn setting(name: &str) -> &'static str {
    let mut values = UNIT
        .lines()
        .filter_map(|line| line.strip_prefix(name)?.strip_prefix('='));
    let value = values
        .next()
        .unwrap_or_else(|| panic!("no {name} in the unit"));
    assert_eq!(values.next(), None, "{name} twice");
    value
}

/// The names of the unit's capabilities as setpriv has them: "-all,+sys_admin".
fn capabilities(name: &str) -> String {
    let each = setting(name).split_whitespace();
    let each = each.map(|capability| capability.trim_start_matches("CAP_").to_lowercase());
    each.fold("-all".to_owned(), |all, one| format!("{all},+{one}"))
}

/// What systemd does for the unit, as far as setpriv and prlimit can.
fn as_the_unit(with_capabilities: bool) -> Command {
    let unlimited = |name| setting(name).replace("infinity", "unlimited");
    let mut command = Command::new("prlimit");
    command
        .arg(format!("--memlock={}", unlimited("LimitMEMLOCK")))
        .arg(format!("--nofile={}", unlimited("LimitNOFILE")))
        .args(["setpriv", "--reuid", "nobody", "--regid", "nogroup"])
        .args(["--groups", setting("SupplementaryGroups")]);
    assert_eq!(setting("NoNewPrivileges"), "yes");
    command.arg("--no-new-privs");
    if with_capabilities {
        let ambient = capabilities("AmbientCapabilities");
        command
            .args(["--bounding-set", &capabilities("CapabilityBoundingSet")])
            .args(["--inh-caps", &ambient, "--ambient-caps", &ambient]);
    }
    command
}

/// Runs the test named `test` of this program again, in its child's part.
fn child(mut user: Command, test: &str) -> Ran {
    let ran = run(user
        .arg("--")
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env(CHILD, "1"));
    let told = ran.stdout.lines().filter(|line| line.starts_with("MEMORY"));
    told.for_each(|line| println!("{line}"));
    ran
}

/// The part that runs without root's rights: plays, and says what it got of each kind of memory.
fn play_as_child(sink: &str) {
    support::player::init();
    for kind in [MemoryKind::Cma, MemoryKind::Udmabuf, MemoryKind::Normal] {
        let region = Region::allocate(&Request {
            kind,
            size_bytes: 64 << 10,
            ..Request::default()
        });
        let told = match &region {
            Ok(region) => match region.address() {
                Ok(address) => format!("at {}, pinned {}", address.first(), region.is_pinned()),
                Err(reason) => format!("without address: {reason}"),
            },
            Err(error) => format!("none: {error}"),
        };
        println!("\nMEMORY {kind} {told}");
    }
    // On a busy machine the base class would drop frames that are late.
    let player = Player::play(&format!(
        "rawvideosrc num-buffers=30 ! {sink} name=sink max-lateness=-1"
    ));
    player.assert_zero_copy(30);
    println!("\nPLAYED");
    std::io::stdout().flush().unwrap();
}

/// What the child said of a kind of memory.
#[track_caller]
fn memory<'a>(ran: &'a Ran, kind: &str) -> &'a str {
    let start = format!("MEMORY {kind} ");
    let mut lines = ran.stdout.lines();
    let told = lines.find_map(|line| line.strip_prefix(&start));
    told.unwrap_or_else(|| panic!("nothing on {kind} in {}", ran.stdout))
}

#[track_caller]
fn plays_with_rules_and_unit(sink: &str, test: &str) {
    require_lab();
    if std::env::var_os(CHILD).is_some() {
        return play_as_child(sink);
    }
    // Without the rules, the unit's user may open nothing.
    undo_rules();
    let refused = child(as_the_unit(true), test);
    assert!(!refused.status.success() && !refused.stdout.contains("\nPLAYED"));
    assert!(memory(&refused, "udmabuf").contains("EACCES"));

    apply_rules();
    let mode = |node: &str| fs::metadata(node).map(|node| node.mode() & 0o777);
    assert_eq!(mode("/dev/dma_heap/system").unwrap(), 0o600);
    assert_eq!(
        mode(&format!("/dev/dma_heap/{}", support::cma_heap())).unwrap(),
        0o660
    );

    let plain = child(as_the_unit(false), test).expect_success();
    assert!(plain.stdout.contains("\nPLAYED"));
    for kind in ["udmabuf", "normal"] {
        let told = memory(&plain, kind);
        assert!(
            told.starts_with("without address: ") && told.contains("CAP_SYS_ADMIN"),
            "{told}"
        );
    }
    let unit = child(as_the_unit(true), test).expect_success();
    assert!(unit.stdout.contains("\nPLAYED"));
    for kind in ["udmabuf", "normal"] {
        let told = memory(&unit, kind);
        assert!(
            told.starts_with("at 0x") && told.ends_with("pinned true"),
            "{told}"
        );
    }
    assert!(!memory(&unit, "cma").starts_with("none"));
    undo_rules();
}

mod cirrus {
    #[test]
    fn the_rules_and_the_unit_are_enough_for_fbpansink() {
        super::plays_with_rules_and_unit(
            "fbpansink",
            "cirrus::the_rules_and_the_unit_are_enough_for_fbpansink",
        );
    }
}

mod vkms {
    #[test]
    fn the_rules_and_the_unit_are_enough_for_kmsflipsink() {
        super::plays_with_rules_and_unit(
            "kmsflipsink",
            "vkms::the_rules_and_the_unit_are_enough_for_kmsflipsink",
        );
    }
}
