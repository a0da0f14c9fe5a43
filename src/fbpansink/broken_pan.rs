// SPDX-License-Identifier: MPL-2.0
//! Drivers that accept a pan and show something else. Pure.
//!
//! Nothing that a process can ask tells them apart, so this is a list. Their
//! memory is a shadow that the kernel copies to the screen where it was touched,
//! and what was touched is cut at `yres`, whatever the offset
//! (drm_fb_helper_memory_range_to_clip in drivers/gpu/drm/drm_fb_helper.c): a pan
//! to any fb_page but the first shows something old or nothing. Drivers whose
//! plane update sends the whole picture at each pan (drm_fbdev_shmem.c) are honest.

/// Names as in fb_fix_screeninfo.id without the "drmfb" at their end. bochs was
/// seen from outside on 6.1 and 6.12; the others share its drm_fbdev_ttm.c.
const SHADOWED: &[&str] = &[
    "bochs-drm",
    "amdgpu",
    "hibmc",
    "loongson",
    "qxl",
    "vboxvideo",
    "vmwgfx",
];

/// Shadowed by drm_fbdev_generic.c until drm_fbdev_shmem.c took over. virtio was
/// seen to show black on 6.1 and the right picture on 6.12.
const SHADOWED_ONCE: &[&str] = &[
    "virtio_gpu",
    "cirrus",
    "simpledrm",
    "ofdrm",
    "ast",
    "mgag200",
    "hyperv_drm",
    "udl",
    "gud",
];
const SHMEM_SINCE: (u32, u32) = (6, 12);

/// Whether panning on the driver called `id` shows what it should not, on a
/// kernel whose release is `release`.
pub fn is_pan_broken(id: &str, release: &str) -> bool {
    let Some(name) = id.strip_suffix("drmfb") else {
        return false;
    };
    SHADOWED.contains(&name) || (SHADOWED_ONCE.contains(&name) && version(release) < SHMEM_SINCE)
}

/// The first two numbers of "6.1.0-28-amd64"; 0.0 if there are none.
fn version(release: &str) -> (u32, u32) {
    let mut numbers = release
        .split(|c: char| !c.is_ascii_digit())
        .map(|n| n.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bochs_lies_always_and_virtio_until_6_12() {
        for release in ["6.1.0-28-amd64", "6.12.57+deb13", "7.0"] {
            assert!(is_pan_broken("bochs-drmdrmfb", release), "{release}");
        }
        assert!(is_pan_broken("virtio_gpudrmfb", "6.1.158"));
        assert!(is_pan_broken("virtio_gpudrmfb", "unknown"));
        assert!(!is_pan_broken("virtio_gpudrmfb", "6.12.57"));
        assert!(!is_pan_broken("virtio_gpudrmfb", "10.1"));
    }

    #[test]
    fn drivers_that_scan_their_memory_out_are_believed() {
        for id in ["vkmsdrmfb", "CL Picasso4", "pl111drmfb", "virtio_gpu", ""] {
            assert!(!is_pan_broken(id, "6.1"), "{id}");
        }
    }
}
