// SPDX-License-Identifier: MPL-2.0
//! `/dev/fbN`: include/uapi/linux/fb.h, with one function for each call, under the kernel's names.
//!
//! This module decides nothing: `fbpansink` judges what drivers report.
use super::mmap::Mapping;
use super::uninterrupted;
use std::fs::OpenOptions;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::ptr::NonNull;

/// All but the last predate request codes that contain size and direction.
mod raw {
    use super::{Cmap, Con2fbmap, FixScreeninfo, VarScreeninfo};

    nix::ioctl_read_bad!(fbioget_vscreeninfo, 0x4600, VarScreeninfo);
    nix::ioctl_readwrite_bad!(fbioput_vscreeninfo, 0x4601, VarScreeninfo);
    nix::ioctl_read_bad!(fbioget_fscreeninfo, 0x4602, FixScreeninfo);
    nix::ioctl_readwrite_bad!(fbiogetcmap, 0x4604, Cmap);
    nix::ioctl_write_ptr_bad!(fbioputcmap, 0x4605, Cmap);
    nix::ioctl_readwrite_bad!(fbiopan_display, 0x4606, VarScreeninfo);
    nix::ioctl_readwrite_bad!(fbioget_con2fbmap, 0x460f, Con2fbmap);
    nix::ioctl_write_int_bad!(fbioblank, 0x4611);
    nix::ioctl_write_ptr!(fbio_waitforvsync, b'F', 0x20, u32);
}

pub const FB_TYPE_PACKED_PIXELS: u32 = 0;
pub const FB_VISUAL_TRUECOLOR: u32 = 2;
pub const FB_VISUAL_DIRECTCOLOR: u32 = 4;
pub const FB_ACTIVATE_NOW: u32 = 0;
pub const FB_ACTIVATE_FORCE: u32 = 128;
pub const FB_VMODE_INTERLACED: u32 = 1;
pub const FB_VMODE_DOUBLE: u32 = 2;
pub const FB_VMODE_YWRAP: u32 = 256;
const FB_BLANK_UNBLANK: libc::c_int = 0;

#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bitfield {
    pub offset: u32,
    pub length: u32,
    pub msb_right: u32,
}

#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct FixScreeninfo {
    pub id: [u8; 16],
    pub smem_start: libc::c_ulong,
    pub smem_len: u32,
    pub type_: u32,
    pub type_aux: u32,
    pub visual: u32,
    pub xpanstep: u16,
    pub ypanstep: u16,
    pub ywrapstep: u16,
    pub line_length: u32,
    pub mmio_start: libc::c_ulong,
    pub mmio_len: u32,
    pub accel: u32,
    pub capabilities: u16,
    pub reserved: [u16; 2],
}

impl FixScreeninfo {
    /// The driver's name for itself. The field need not end in NUL.
    pub fn driver(&self) -> String {
        let end = self.id.iter().position(|&c| c == 0).unwrap_or(16);
        String::from_utf8_lossy(&self.id[..end]).into_owned()
    }

    /// `smem_start` in the width of all other addresses.
    #[allow(clippy::unnecessary_cast)] // needed on 32-bit machines
    pub fn smem_start_u64(&self) -> u64 {
        self.smem_start as u64
    }

    #[cfg(test)]
    pub fn with_id(id: &str) -> Self {
        let mut fix = Self::default();
        fix.id[..id.len()].copy_from_slice(id.as_bytes());
        fix
    }
}

#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VarScreeninfo {
    pub xres: u32,
    pub yres: u32,
    pub xres_virtual: u32,
    pub yres_virtual: u32,
    pub xoffset: u32,
    pub yoffset: u32,
    pub bits_per_pixel: u32,
    pub grayscale: u32,
    pub red: Bitfield,
    pub green: Bitfield,
    pub blue: Bitfield,
    pub transp: Bitfield,
    pub nonstd: u32,
    pub activate: u32,
    pub height: u32,
    pub width: u32,
    pub accel_flags: u32,
    pub pixclock: u32,
    pub left_margin: u32,
    pub right_margin: u32,
    pub upper_margin: u32,
    pub lower_margin: u32,
    pub hsync_len: u32,
    pub vsync_len: u32,
    pub sync: u32,
    pub vmode: u32,
    pub rotate: u32,
    pub colorspace: u32,
    pub reserved: [u32; 4],
}

#[repr(C)]
struct Cmap {
    start: u32,
    len: u32,
    red: *mut u16,
    green: *mut u16,
    blue: *mut u16,
    transp: *mut u16,
}

#[repr(C)]
struct Con2fbmap {
    console: u32,
    framebuffer: u32,
}

// The kernel copies sizeof(struct) bytes, so a smaller struct here would be a buffer overrun.
const _: () = assert!(size_of::<VarScreeninfo>() == 160);
const _: () = assert!(size_of::<Bitfield>() == 12);
const _: () = assert!(size_of::<Con2fbmap>() == 8);
const _: () = assert!(size_of::<libc::c_ulong>() != 8 || size_of::<FixScreeninfo>() == 80);
const _: () = assert!(size_of::<libc::c_ulong>() != 4 || size_of::<FixScreeninfo>() == 68);
const _: () = assert!(size_of::<*mut u16>() != 8 || size_of::<Cmap>() == 40);

pub fn open(path: &Path) -> io::Result<OwnedFd> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_CLOEXEC)
        .open(path)?;
    Ok(file.into())
}

pub fn fscreeninfo(fd: BorrowedFd<'_>) -> io::Result<FixScreeninfo> {
    let mut fix = FixScreeninfo::default();
    // SAFETY: `fix` has the size and layout the kernel writes (asserted above).
    unsafe { raw::fbioget_fscreeninfo(fd.as_raw_fd(), &mut fix) }?;
    Ok(fix)
}

pub fn vscreeninfo(fd: BorrowedFd<'_>) -> io::Result<VarScreeninfo> {
    let mut var = VarScreeninfo::default();
    // SAFETY: `var` has the size and layout the kernel writes (asserted above).
    unsafe { raw::fbioget_vscreeninfo(fd.as_raw_fd(), &mut var) }?;
    Ok(var)
}

/// Sets the mode `var`. The kernel's answer in place may differ from the mode that it set, so read the mode
/// again by [`vscreeninfo`] and [`fscreeninfo`].
pub fn put_vscreeninfo(fd: BorrowedFd<'_>, var: &VarScreeninfo) -> io::Result<()> {
    let mut var = *var;
    // SAFETY: `var` has the size and layout that the kernel reads and writes back.
    uninterrupted(|| unsafe { raw::fbioput_vscreeninfo(fd.as_raw_fd(), &mut var) })?;
    Ok(())
}

/// Shows the part at `var.xoffset`, `var.yoffset`. The kernel reads only these and `FB_VMODE_YWRAP`.
pub fn pan_display(fd: BorrowedFd<'_>, var: &VarScreeninfo) -> io::Result<()> {
    let mut var = *var;
    // SAFETY: `var` has the size and layout that the kernel reads and writes back.
    uninterrupted(|| unsafe { raw::fbiopan_display(fd.as_raw_fd(), &mut var) })?;
    Ok(())
}

/// Restores an earlier mode. If the virtual height is unchanged, a pan is enough, since drivers blank the
/// screen when a mode is set.
pub fn put_back(fd: BorrowedFd<'_>, original: &VarScreeninfo) -> io::Result<()> {
    if vscreeninfo(fd)?.yres_virtual == original.yres_virtual {
        return pan_display(fd, original);
    }
    put_vscreeninfo(
        fd,
        &VarScreeninfo {
            activate: FB_ACTIVATE_NOW,
            ..*original
        },
    )?;
    let now = vscreeninfo(fd)?;
    if (now.xoffset, now.yoffset) != (original.xoffset, original.yoffset) {
        pan_display(fd, original)?;
    }
    Ok(())
}

/// Waits for the next vertical blank of the first CRTC. Drivers limit the wait (DRM: 50-100 ms).
pub fn wait_for_vsync(fd: BorrowedFd<'_>) -> io::Result<()> {
    let crtc: u32 = 0;
    // SAFETY: the kernel reads one u32 (its size is part of the request code).
    uninterrupted(|| unsafe { raw::fbio_waitforvsync(fd.as_raw_fd(), &crtc) })?;
    Ok(())
}

/// Has a driver with deferred I/O send to the display what was written into its memory
/// (`fb_deferred_io_fsync`), which it would do later by itself. Returns when it has (read in 6.1.192 and 7.2; older
/// kernels return when it has begun). Does nothing with other drivers. EINVAL without CONFIG_FB_DEFERRED_IO.
///
/// A pan to the same place is no substitute: drivers without `fb_pan_display` refuse it, and a DRM driver with a
/// shadow buffer shows again what it copied from there last.
pub fn flush(fd: BorrowedFd<'_>) -> io::Result<()> {
    Ok(rustix::fs::fsync(fd)?)
}

pub fn unblank(fd: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: the argument is a number, not a pointer.
    unsafe { raw::fbioblank(fd.as_raw_fd(), FB_BLANK_UNBLANK) }?;
    Ok(())
}

/// The framebuffer that the kernel's console number `console` (1 = tty1) is drawn on, if any.
pub fn con2fbmap(fd: BorrowedFd<'_>, console: u32) -> io::Result<Option<u32>> {
    let mut map = Con2fbmap {
        console,
        framebuffer: u32::MAX,
    };
    // SAFETY: `map` has the size and layout that the kernel reads and writes back.
    unsafe { raw::fbioget_con2fbmap(fd.as_raw_fd(), &mut map) }?;
    // The kernel stores -1, in a signed char, for a console on no framebuffer.
    Ok((map.framebuffer < 32).then_some(map.framebuffer))
}

/// Colour ramps for red, green and blue, with the same number of entries each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ramps {
    pub red: Vec<u16>,
    pub green: Vec<u16>,
    pub blue: Vec<u16>,
}

impl Ramps {
    fn as_cmap(&mut self) -> Cmap {
        let len = self.red.len().min(self.green.len()).min(self.blue.len());
        Cmap {
            start: 0,
            len: len as u32,
            red: self.red.as_mut_ptr(),
            green: self.green.as_mut_ptr(),
            blue: self.blue.as_mut_ptr(),
            transp: std::ptr::null_mut(),
        }
    }
}

pub fn cmap(fd: BorrowedFd<'_>, entries: usize) -> io::Result<Ramps> {
    let mut ramps = Ramps {
        red: vec![0; entries],
        green: vec![0; entries],
        blue: vec![0; entries],
    };
    let mut cmap = ramps.as_cmap();
    // SAFETY: the three pointers are valid for `cmap.len` entries each; a NULL transp is skipped
    // (fb_copy_cmap / fb_cmap_to_user).
    unsafe { raw::fbiogetcmap(fd.as_raw_fd(), &mut cmap) }?;
    Ok(ramps)
}

pub fn put_cmap(fd: BorrowedFd<'_>, ramps: &Ramps) -> io::Result<()> {
    let mut ramps = ramps.clone();
    let cmap = ramps.as_cmap();
    // SAFETY: as in `cmap`; the kernel only reads through the pointers.
    unsafe { raw::fbioputcmap(fd.as_raw_fd(), &cmap) }?;
    Ok(())
}

/// The framebuffer's memory, mapped read-write until dropped. The cycle of pages in `display` decides when
/// which bytes may be written.
#[derive(Debug)]
pub struct FbMemory(Mapping);

impl FbMemory {
    /// Maps the first `len_bytes` of the framebuffer. The descriptor may be closed before the mapping ends.
    pub fn map(fd: BorrowedFd<'_>, len_bytes: usize) -> io::Result<Self> {
        Mapping::shared(fd, len_bytes).map(Self)
    }

    pub fn ptr(&self) -> NonNull<u8> {
        self.0.ptr()
    }

    pub fn len_bytes(&self) -> usize {
        self.0.len_bytes()
    }

    /// Copies the bytes at `offset_bytes`. Reading a framebuffer is 5-10 times slower than writing one, so
    /// do not read it for each frame.
    ///
    /// # Panics
    /// When the range lies outside the mapping.
    pub fn read(&self, offset_bytes: usize, len_bytes: usize) -> Vec<u8> {
        let end = offset_bytes.checked_add(len_bytes);
        assert!(
            end.is_some_and(|end| end <= self.len_bytes()),
            "outside the mapping"
        );
        let mut bytes = vec![0; len_bytes];
        // SAFETY: the source lies inside the mapping (just checked), which lives as long as self; `bytes`
        // is a vector of our own, of that length. Code that writes there meanwhile writes pixels, which
        // have no invalid value.
        unsafe {
            self.ptr()
                .as_ptr()
                .add(offset_bytes)
                .copy_to_nonoverlapping(bytes.as_mut_ptr(), len_bytes)
        };
        bytes
    }

    /// Writes the byte at `offset_bytes` over itself.
    ///
    /// # Panics
    /// When it lies outside the mapping.
    pub fn touch(&self, offset_bytes: usize) {
        assert!(offset_bytes < self.len_bytes(), "outside the mapping");
        // SAFETY: the byte lies inside the mapping (just checked), which lives as long as self and of which no Rust
        // reference exists.
        unsafe {
            let byte = self.ptr().as_ptr().add(offset_bytes);
            byte.write_volatile(byte.read_volatile());
        }
    }

    /// Writes `bytes` at `offset_bytes`.
    ///
    /// # Panics
    /// When the range lies outside the mapping.
    pub fn write(&self, offset_bytes: usize, bytes: &[u8]) {
        let end = offset_bytes.checked_add(bytes.len());
        assert!(
            end.is_some_and(|end| end <= self.len_bytes()),
            "outside the mapping"
        );
        // SAFETY: the destination lies inside the mapping (just checked), which lives as long as self and
        // of which no Rust reference exists; `bytes` is a live slice elsewhere.
        unsafe {
            self.ptr()
                .as_ptr()
                .add(offset_bytes)
                .copy_from_nonoverlapping(bytes.as_ptr(), bytes.len())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    fn an_id_of_sixteen_characters_needs_no_nul() {
        assert_eq!(
            FixScreeninfo::with_id("0123456789abcdef").driver(),
            "0123456789abcdef"
        );
        assert_eq!(FixScreeninfo::with_id("vkmsdrmfb").driver(), "vkmsdrmfb");
    }

    #[test]
    fn an_ioctl_on_a_file_that_is_no_framebuffer_is_an_error() {
        let null = open(Path::new("/dev/null")).unwrap();
        assert_eq!(
            vscreeninfo(null.as_fd()).unwrap_err().raw_os_error(),
            Some(libc::ENOTTY)
        );
        assert_eq!(
            fscreeninfo(null.as_fd()).unwrap_err().raw_os_error(),
            Some(libc::ENOTTY)
        );
        assert_eq!(
            wait_for_vsync(null.as_fd()).unwrap_err().raw_os_error(),
            Some(libc::ENOTTY)
        );
    }
}
