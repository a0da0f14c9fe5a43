// SPDX-License-Identifier: MPL-2.0
//! Why a process cannot learn its physical addresses, and what would help: one sentence for each reason.
//! `docs/memory.md` has the same as a table.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::sys::cma_trace::{Object, Unavailable};
use crate::sys::privileges::{self, Capability};
use crate::sys::{describe, pagemap};

/// What the kernel decides by.
#[derive(Clone, Copy, Debug)]
struct Privileges {
    has_sys_admin: bool,
    has_perfmon: bool,
    is_dumpable: bool,
    perf_event_paranoid: Option<i32>,
}

impl Privileges {
    fn now() -> Self {
        Self {
            has_sys_admin: privileges::has(Capability::SysAdmin),
            has_perfmon: privileges::has(Capability::Perfmon),
            is_dumpable: privileges::is_dumpable(),
            perf_event_paranoid: privileges::perf_event_paranoid(),
        }
    }
}

/// How a program gets a capability and stays dumpable. The advice is not setcap: that also takes
/// /proc/self/pagemap away, and gives the capability to every plugin that the program can be made to load.
fn ambient(capability: &str) -> String {
    let short = capability.trim_start_matches("CAP_").to_lowercase();
    format!(
        "start it with {capability} in its ambient set (AmbientCapabilities={capability} of a \
         systemd unit, or setpriv --inh-caps +{short} --ambient-caps +{short})"
    )
}

/// The reason why pagemap opens but shows 0 for every frame number.
pub(super) fn why_frames_are_hidden() -> String {
    frames_are_hidden(Privileges::now())
}

fn frames_are_hidden(privileges: Privileges) -> String {
    let path = pagemap::PATH;
    match privileges.has_sys_admin {
        false => format!(
            "{path} shows no frame numbers to a process without CAP_SYS_ADMIN: run it as root, or {}",
            ambient("CAP_SYS_ADMIN")
        ),
        true => format!(
            "{path} shows no frame numbers, although this process has CAP_SYS_ADMIN: it has it in \
             a user namespace (a rootless container), and the kernel asks for it outside of any"
        ),
    }
}

/// The reason why pagemap does not open.
pub(super) fn why_pagemap_refused(error: &io::Error) -> String {
    pagemap_refused(Privileges::now(), error)
}

fn pagemap_refused(privileges: Privileges, error: &io::Error) -> String {
    let refused = format!("{}: {}", pagemap::PATH, describe(error));
    match privileges.is_dumpable {
        false => format!(
            "{refused}: the file is root's, since this process is not dumpable: its program file \
             has capabilities (setcap) or a set-user-ID bit, or it changed its user: take them \
             off and {}",
            ambient("CAP_SYS_ADMIN")
        ),
        true => format!(
            "{refused}: the file is this process's own, so a security module (AppArmor, SELinux) \
             or a seccomp filter refuses it: allow it there"
        ),
    }
}

/// The reason why the tracepoint of the contiguous memory allocator cannot be read.
pub(super) fn why_no_trace(unavailable: &Unavailable) -> String {
    no_trace(Privileges::now(), unavailable)
}

fn no_trace(privileges: Privileges, unavailable: &Unavailable) -> String {
    let Unavailable { object, source } = unavailable;
    let refused = describe(source);
    let is_denied = source.kind() == io::ErrorKind::PermissionDenied;
    match (object, source.raw_os_error()) {
        (Object::Path(path), _) if is_denied => format!(
            "{}{}: {refused}: let the program's group read tracefs (mount -o \
             remount,mode=0750,gid=GROUP /sys/kernel/tracing)",
            path.display(),
            owner_and_mode(path)
        ),
        (Object::Path(path), Some(libc::ENOENT)) => format!(
            "{}: {refused}: mount tracefs (mount -t tracefs tracefs /sys/kernel/tracing); the \
             kernel needs CONFIG_CMA, CONFIG_FTRACE and CONFIG_PERF_EVENTS",
            path.display()
        ),
        (Object::Call(name), _) if is_denied => {
            let may_trace = privileges.has_perfmon || privileges.has_sys_admin;
            match (may_trace, privileges.perf_event_paranoid) {
                (false, Some(level)) if level > -1 => format!(
                    "{name}: {refused}: without CAP_PERFMON, and with kernel.perf_event_paranoid \
                     at {level}: {}",
                    ambient("CAP_PERFMON")
                ),
                _ => format!(
                    "{name}: {refused}: this process's capabilities and \
                     kernel.perf_event_paranoid would do, so a seccomp filter (of a container), a \
                     security module, kernel lockdown or a user namespace refuses it"
                ),
            }
        }
        (Object::Call(name), Some(libc::ENOSYS)) => {
            format!("{name}: {refused}: the kernel needs CONFIG_PERF_EVENTS")
        }
        (Object::Call(name), Some(libc::EMFILE)) => {
            format!("{name}: {refused}: raise the limit of open files (ulimit -n)")
        }
        _ => format!("{object}: {refused}"),
    }
}

/// Formats " (mode 0700 of user 0, group 0)". Empty if the file's metadata cannot be read.
pub(super) fn owner_and_mode(path: &Path) -> String {
    path.metadata()
        .map(|file| {
            let mode = file.mode() & 0o7777;
            format!(
                " (mode {mode:04o} of user {}, group {})",
                file.uid(),
                file.gid()
            )
        })
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOBODY: Privileges = Privileges {
        has_sys_admin: false,
        has_perfmon: false,
        is_dumpable: true,
        perf_event_paranoid: Some(2),
    };
    const ADMIN: Privileges = Privileges {
        has_sys_admin: true,
        ..NOBODY
    };

    fn errno(errno: i32) -> io::Error {
        io::Error::from_raw_os_error(errno)
    }

    fn call(refused: i32) -> Unavailable {
        Unavailable {
            object: Object::Call("perf_event_open"),
            source: errno(refused),
        }
    }

    #[test]
    fn who_lacks_the_capability_is_told_so_and_who_has_it_is_not() {
        let text = frames_are_hidden(NOBODY);
        assert!(text.contains("without CAP_SYS_ADMIN"), "{text}");
        assert!(text.contains("AmbientCapabilities=CAP_SYS_ADMIN"), "{text}");
        let text = frames_are_hidden(ADMIN);
        assert!(
            text.contains("although this process has CAP_SYS_ADMIN"),
            "{text}"
        );
        assert!(!text.contains("setpriv"), "{text}");
    }

    #[test]
    fn a_program_with_file_capabilities_is_told_to_take_them_off() {
        let setcap = Privileges {
            is_dumpable: false,
            ..ADMIN
        };
        let text = pagemap_refused(setcap, &errno(libc::EACCES));
        assert!(
            text.starts_with("/proc/self/pagemap: Permission denied (EACCES): "),
            "{text}"
        );
        assert!(text.contains("not dumpable"), "{text}");
        let text = pagemap_refused(ADMIN, &errno(libc::EACCES));
        assert!(text.contains("security module"), "{text}");
        assert!(!text.contains("CAP_"), "{text}");
    }

    #[test]
    fn perf_says_which_of_its_two_conditions_failed() {
        let text = no_trace(NOBODY, &call(libc::EPERM));
        assert!(text.contains("without CAP_PERFMON"), "{text}");
        assert!(text.contains("kernel.perf_event_paranoid at 2"), "{text}");
        for privileged in [
            ADMIN,
            Privileges {
                has_perfmon: true,
                ..NOBODY
            },
            Privileges {
                perf_event_paranoid: Some(-1),
                ..NOBODY
            },
        ] {
            let text = no_trace(privileged, &call(libc::EPERM));
            assert!(text.contains("seccomp"), "{text}");
        }
    }

    #[test]
    fn a_closed_directory_is_named_with_its_mode() {
        use std::os::unix::fs::PermissionsExt;
        let directory = tempfile::tempdir().unwrap();
        let closed = std::fs::Permissions::from_mode(0o700);
        std::fs::set_permissions(directory.path(), closed).unwrap();
        let text = no_trace(
            ADMIN,
            &Unavailable {
                object: Object::Path(directory.path().to_owned()),
                source: errno(libc::EACCES),
            },
        );
        let start = format!("{} (mode 0700 of user ", directory.path().display());
        assert!(text.starts_with(&start), "{text}");
        assert!(text.contains("Permission denied (EACCES)"), "{text}");
        assert!(!text.contains("CAP_SYS_ADMIN"), "{text}");
    }
}
