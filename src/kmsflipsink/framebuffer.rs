// SPDX-License-Identifier: MPL-2.0
//! GEM objects, dumb buffers, and framebuffers over them.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, OnceLock};

use drm::buffer::Handle as GemName;
use drm::control::{self, Device as _, framebuffer};

use super::device::{Device, GemUses};
use crate::sys::mmap::Mapping;

impl Device {
    /// Imports a dma-buf as a GEM object.
    fn gem_of(self: &Arc<Self>, dma_buf: BorrowedFd<'_>) -> io::Result<Gem> {
        let mut names = self.gem_names.lock();
        let name = self.memory.prime_fd_to_buffer(dma_buf)?;
        names.entry(name).or_default().n += 1;
        Ok(Gem {
            device: self.clone(),
            name,
        })
    }

    /// Makes a dumb buffer of `bits` per pixel. The driver chooses its pitch.
    pub fn create_dumb(self: &Arc<Self>, width: u32, height: u32, bits: u32) -> io::Result<Dumb> {
        let mut names = self.gem_names.lock();
        let dumb = self.memory.create_dumb_buffer(
            (width, height),
            drm::buffer::DrmFourcc::Xrgb8888,
            bits,
        )?;
        let name = drm::buffer::Buffer::handle(&dumb);
        names.insert(name, GemUses::of_own_buffer());
        drop(names);
        Ok(Dumb {
            gem: Gem {
                device: self.clone(),
                name,
            },
            dumb,
        })
    }

    /// Makes a framebuffer over dma-bufs, one for each colour plane.
    pub fn import(
        self: &Arc<Self>,
        shape: &FbShape,
        dma_bufs: &[BorrowedFd<'_>],
    ) -> io::Result<Framebuffer> {
        if !self.can_import {
            return Err(io::Error::from_raw_os_error(libc::ENOSYS));
        }
        let gems = dma_bufs
            .iter()
            .map(|&fd| self.gem_of(fd))
            .collect::<io::Result<Vec<_>>>()?;
        // The framebuffer keeps the memory, so the handles can be closed.
        self.add_framebuffer_of(shape, &gems.iter().map(|gem| gem.name).collect::<Vec<_>>())
    }

    fn add_framebuffer_of(
        self: &Arc<Self>,
        shape: &FbShape,
        names: &[GemName],
    ) -> io::Result<Framebuffer> {
        let mut handles = [0; 4];
        let mut modifiers = [0; 4];
        for (plane, &name) in names.iter().enumerate() {
            handles[plane] = name.into();
            modifiers[plane] = shape.modifier.unwrap_or(0);
        }
        let flags = match shape.modifier {
            Some(_) => drm_ffi::DRM_MODE_FB_MODIFIERS,
            None => 0,
        };
        // The crate drm makes no framebuffer of a fourcc that it does not know.
        let made = drm_ffi::mode::add_fb2(
            self.memory.as_fd(),
            shape.width,
            shape.height,
            shape.fourcc,
            &handles,
            &shape.pitches,
            &shape.offsets,
            &modifiers,
            flags,
        )?;
        let id = control::from_u32(made.fb_id).ok_or(io::ErrorKind::InvalidData)?;
        Ok(Framebuffer {
            device: self.clone(),
            id,
            shape: *shape,
            verdict: OnceLock::new(),
        })
    }
}

/// A use of a GEM handle. Dropping the last use closes the handle.
#[derive(Debug)]
struct Gem {
    device: Arc<Device>,
    name: GemName,
}

impl Drop for Gem {
    fn drop(&mut self) {
        let mut names = self.device.gem_names.lock();
        let Some(uses) = names.get_mut(&self.name) else {
            return;
        };
        uses.n -= 1;
        if uses.n == 0 {
            let is_closed = uses.may_close(self.device.keeps_gem_names);
            names.remove(&self.name);
            if !is_closed {
                return;
            }
            // This fails only when the device is gone, and the handle with it.
            let _ = self.device.memory.close_buffer(self.name);
        }
    }
}

/// A dumb buffer: memory that the driver allocates and can always show.
#[derive(Debug)]
pub struct Dumb {
    gem: Gem,
    dumb: control::dumbbuffer::DumbBuffer,
}

impl Dumb {
    /// Bytes from row to row.
    pub fn pitch(&self) -> u32 {
        drm::buffer::Buffer::pitch(&self.dumb)
    }

    pub fn framebuffer(&self, shape: &FbShape) -> io::Result<Framebuffer> {
        let names = [self.gem.name; 4];
        self.gem
            .device
            .add_framebuffer_of(shape, &names[..shape.n_planes])
    }

    pub fn map(&self) -> io::Result<Mapping> {
        Mapping::of_dumb_buffer(&self.gem.device.memory, self.dumb)
    }

    /// Exports the buffer as a dma-buf; `None` if the driver does not.
    pub fn export(&self) -> Option<OwnedFd> {
        if !self.gem.device.can_export {
            return None;
        }
        let device = &self.gem.device;
        let flags = drm::CLOEXEC | drm::RDWR;
        let dma_buf = device
            .memory
            .buffer_to_prime_fd(self.gem.name, flags)
            .ok()?;
        // Whoever imports it on the same file gets the same handle.
        if let Some(uses) = device.gem_names.lock().get_mut(&self.gem.name) {
            uses.is_private = false;
        }
        Some(dma_buf)
    }
}

/// The arguments of DRM_IOCTL_MODE_ADDFB2 besides the memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FbShape {
    pub width: u32,
    pub height: u32,
    pub fourcc: u32,
    /// The DRM format modifier; `None` leaves it to the driver.
    pub modifier: Option<u64>,
    pub n_planes: usize,
    /// Bytes from row to row in each colour plane.
    pub pitches: [u32; 4],
    /// Where each colour plane begins in its memory, in bytes.
    pub offsets: [u32; 4],
}

/// A framebuffer in the kernel, removed when this is dropped. It must not be dropped while it is on the
/// screen, because the kernel would switch the plane off.
#[derive(Debug)]
pub struct Framebuffer {
    device: Arc<Device>,
    id: framebuffer::Handle,
    shape: FbShape,
    verdict: OnceLock<Result<(), String>>,
}

impl Framebuffer {
    pub fn id(&self) -> u32 {
        self.id.into()
    }

    pub fn shape(&self) -> &FbShape {
        &self.shape
    }

    /// Whether the driver shows the framebuffer, or why not. `None` before its first commit: AddFB2 and
    /// TEST_ONLY do not try to pin and map the memory.
    pub fn verdict(&self) -> Option<Result<(), &str>> {
        let verdict = self.verdict.get()?;
        Some(verdict.as_ref().copied().map_err(String::as_str))
    }

    /// Stores whether the kernel took a commit with this framebuffer. Only the first verdict counts, because
    /// a framebuffer that was shown once is refused later for another reason than its memory.
    pub fn judge(&self, verdict: Result<(), &str>) {
        self.verdict.get_or_init(|| verdict.map_err(str::to_owned));
    }
}

#[cfg(test)]
impl Framebuffer {
    /// A framebuffer of a card that does not exist.
    pub fn blank(device: &Arc<Device>) -> Arc<Self> {
        Arc::new(Self {
            device: device.clone(),
            id: control::from_u32(1).unwrap(),
            shape: FbShape {
                width: 4,
                height: 4,
                fourcc: 0,
                modifier: None,
                n_planes: 1,
                pitches: [16; 4],
                offsets: [0; 4],
            },
            verdict: OnceLock::new(),
        })
    }
}

impl Drop for Framebuffer {
    fn drop(&mut self) {
        // This fails only when the device is gone, and the framebuffer with it.
        let _ = self.device.memory.destroy_framebuffer(self.id);
    }
}
