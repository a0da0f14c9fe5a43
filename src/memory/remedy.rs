// SPDX-License-Identifier: MPL-2.0
//! Remedies for system calls that fail. A remedy for another fault costs the user more than none, so each
//! remedy belongs to the errno that calls for it.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::process::{Resource, getrlimit};

pub(super) const ASK_FOR_LESS: &str = "ask for less, or free memory";

/// The remedy for an errno that means the same for every call.
fn of_errno(errno: Option<i32>) -> Option<&'static str> {
    Some(match errno? {
        libc::EMFILE => "raise the limit of open files (ulimit -n)",
        libc::ENFILE => "raise the system's limit of open files (sysctl fs.file-max)",
        libc::EPERM | libc::EACCES => {
            "a security module or a seccomp filter (of a container) refuses it: allow it there"
        }
        libc::ENOSYS => "the kernel was built without this system call",
        _ => return None,
    })
}

/// The remedy for a failed allocation. `otherwise` is the remedy that the kind of memory suggests.
pub(super) fn for_memory(error: &io::Error, otherwise: &str) -> String {
    let errno = error.raw_os_error();
    if let Some(remedy) = of_errno(errno) {
        return remedy.to_owned();
    }
    match errno {
        Some(libc::ENOMEM) if is_limited(Resource::As) => {
            format!("{otherwise}; or raise the limit of the address space (ulimit -v)")
        }
        Some(libc::EAGAIN) => {
            "the program locks all of its memory (mlockall): raise RLIMIT_MEMLOCK (ulimit -l)"
                .to_owned()
        }
        _ => otherwise.to_owned(),
    }
}

fn is_limited(resource: Resource) -> bool {
    getrlimit(resource).current.is_some()
}

/// The remedy for a device that did not open. `missing` helps if the device does not exist.
pub(super) fn for_device(path: &Path, error: &io::Error, missing: &str) -> String {
    match error.raw_os_error() {
        Some(libc::EACCES | libc::EPERM) => for_closed_device(path),
        Some(libc::ENOENT | libc::ENODEV | libc::ENXIO | libc::ENOTDIR) => missing.to_owned(),
        errno => of_errno(errno).unwrap_or(missing).to_owned(),
    }
}

/// Says which users may open the device, and how to become one of them.
fn for_closed_device(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    match path.metadata() {
        Ok(file) if file.mode() & 0o060 == 0o060 && file.gid() != 0 => {
            let group = nix::unistd::Group::from_gid(file.gid().into());
            let group = match group {
                Ok(Some(group)) => group.name,
                _ => file.gid().to_string(),
            };
            format!("add the user to group {group}, whose it is")
        }
        Ok(file) => format!(
            "only user {} may open it (mode {:04o}): give it to a group by a udev rule \
             (KERNEL==\"{name}\", GROUP=\"video\", MODE=\"0660\")",
            file.uid(),
            file.mode() & 0o7777
        ),
        Err(_) => "its directory is closed to this user".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, chown};

    fn errno(errno: i32) -> io::Error {
        io::Error::from_raw_os_error(errno)
    }

    #[test]
    fn want_of_memory_is_not_the_remedy_for_want_of_anything_else() {
        let ask = "ask for less";
        assert!(for_memory(&errno(libc::ENOMEM), ask).starts_with(ask));
        for other in [libc::EMFILE, libc::ENFILE, libc::EPERM, libc::ENOSYS] {
            let remedy = for_memory(&errno(other), ask);
            assert!(!remedy.contains(ask), "{other}: {remedy}");
        }
        assert!(for_memory(&errno(libc::EMFILE), ask).contains("ulimit -n"));
    }

    #[test]
    fn a_closed_device_says_whose_it_is() {
        let device = tempfile::NamedTempFile::new().unwrap();
        let mode = |mode| {
            let mode = std::fs::Permissions::from_mode(mode);
            std::fs::set_permissions(device.path(), mode).unwrap();
            for_device(device.path(), &errno(libc::EACCES), "modprobe it")
        };
        let alone = mode(0o600);
        assert!(
            alone.contains("(mode 0600)") && alone.contains("udev rule"),
            "{alone}"
        );
        // Only root may change the group of this file.
        if nix::unistd::geteuid().is_root() {
            chown(device.path(), None, Some(1)).unwrap();
            let shared = mode(0o660);
            assert_eq!(shared, "add the user to group daemon, whose it is");
        }
        let gone = Path::new("/dev/no-such-device");
        assert_eq!(
            for_device(gone, &errno(libc::ENOENT), "modprobe it"),
            "modprobe it"
        );
        assert!(for_device(gone, &errno(libc::EMFILE), "modprobe it").contains("ulimit -n"));
    }
}
