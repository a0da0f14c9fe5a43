// SPDX-License-Identifier: MPL-2.0
//! The GstContext by which an application gives an open card to all kmsflipsinks of a pipeline at once, and by which it,
//! or an element, learns which card a sink shows on.
//!
//! No other element has a context with the fd of a card: that of VA holds a VADisplay, and that of GL a GstGLDisplay. So
//! the type is this plugin's own.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use gst::glib;

/// The type of the context. The fields are below.
pub const TYPE: &str = "physmem.drm.device";

/// gint: an open card, master or lease, as in the property `fd`.
const FD: &str = "fd";
/// gchararray: the device node.
const DEVICE: &str = "device";
/// gchararray: the name that the driver gives to DRM.
const DRIVER: &str = "driver";
/// Keeps `fd` open as long as the context lives.
const OWNER: &str = "owner";

/// The value of [`OWNER`].
#[derive(Debug, Clone, glib::Boxed)]
#[boxed_type(name = "GstPhysMemDrmFile", allow_name_conflict)]
struct Owner(#[allow(dead_code, reason = "dropping it is its use")] Arc<OwnedFd>);

/// A duplicate of the fd of a context; `None` if the context has none. The error is the one of dup.
pub fn fd_of(context: &gst::ContextRef) -> io::Result<Option<OwnedFd>> {
    let Some(fd) = context
        .structure()
        .get::<i32>(FD)
        .ok()
        .filter(|&fd| fd >= 0)
    else {
        return Ok(None);
    };
    // SAFETY: whoever sets a context keeps its fd open for as long as it is set, as the documentation says. The borrow
    // ends with this statement. If the fd is not open all the same, the kernel says so.
    let fd = unsafe { BorrowedFd::borrow_raw(fd) };
    fd.try_clone_to_owned().map(Some)
}

/// The context of a card. `fd` is the file that the application passed; a file that the sink opened by itself is not given
/// away, because GEM handles are numbers of one file: whoever imports the same memory on it would get the handle of the
/// sink, and close it.
pub fn of_card(device: &str, driver: &str, fd: Option<&Arc<OwnedFd>>) -> gst::Context {
    let mut context = gst::Context::new(TYPE, true);
    if let Some(context) = context.get_mut() {
        let structure = context.structure_mut();
        structure.set(DEVICE, device);
        structure.set(DRIVER, driver);
        if let Some(fd) = fd {
            structure.set(FD, fd.as_raw_fd());
            structure.set(OWNER, Owner(fd.clone()));
        }
    }
    context
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;
    use crate::sys::open_file::is_same_open_file;
    use std::os::fd::AsFd;

    #[test]
    fn the_fd_of_a_context_is_the_same_open_file_and_outlives_its_owner() {
        gst::init().unwrap();
        let file = Arc::new(OwnedFd::from(File::open("/dev/null").unwrap()));
        let context = of_card("/dev/dri/card7", "vkms", Some(&file));
        let number = file.as_raw_fd();
        drop(file);
        let structure = context.structure();
        assert_eq!(structure.get::<i32>("fd"), Ok(number));
        assert_eq!(structure.get::<&str>("device"), Ok("/dev/dri/card7"));
        let own = fd_of(&context).unwrap().unwrap();
        assert_ne!(own.as_raw_fd(), number);
        // SAFETY: the context keeps it open.
        let of_context = unsafe { BorrowedFd::borrow_raw(number) };
        assert!(is_same_open_file(own.as_fd(), of_context));
    }

    #[test]
    fn a_context_without_an_open_file_has_none() {
        gst::init().unwrap();
        let mut context = of_card("/dev/dri/card7", "vkms", None);
        assert!(fd_of(&context).unwrap().is_none());
        let structure = context.get_mut().unwrap().structure_mut();
        structure.set("fd", -1i32);
        assert!(fd_of(&context).unwrap().is_none());
        let structure = context.get_mut().unwrap().structure_mut();
        structure.set("fd", 987_654i32);
        let error = fd_of(&context).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EBADF));
    }
}
