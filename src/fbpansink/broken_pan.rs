// SPDX-License-Identifier: MPL-2.0
//! Drivers that accept a pan and show something else. Pure.
//!
//! No system call reveals these drivers, so this file lists them. Their memory is a shadow buffer, from which
//! the kernel copies the damaged rectangle to the screen. It clips that rectangle at `yres` without regard to
//! the offset (drm_fb_helper_memory_range_to_clip in drivers/gpu/drm/drm_fb_helper.c). So a pan to any
//! fb_page but the first shows an old picture or none. Drivers whose plane update sends the whole picture at
//! each pan (drm_fbdev_shmem.c) show the right one.

/// Names of DRM drivers. bochs was observed on 6.1 and 6.12, on the screen itself; the next six share its
/// drm_fbdev_ttm.c. All after those have framebuffers that must be told of damage (`dirty`), for which
/// drm_fbdev_dma.c has a shadow buffer, too (read in 6.1 and 6.12; not observed).
const SHADOWED: &[&str] = &[
    "bochs-drm",
    "amdgpu",
    "hibmc",
    "loongson",
    "qxl",
    "vboxvideo",
    "vmwgfx",
    "rockchip",
    "imx-lcdc",
    "ingenic-drm",
    "repaper",
    // The panels of drm_mipi_dbi.c.
    "panel-mipi-dbi",
    "hx8357d",
    "ili9163",
    "ili9225",
    "ili9341",
    "ili9486",
    "mi0283qt",
    "st7586",
    "st7735r",
];

/// Drivers that had a shadow buffer (drm_fbdev_generic.c) until they used
/// drm_fbdev_shmem.c. virtio was observed to show black on 6.1 and the right picture on 6.12.
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
    "gm12u320",
    "ssd130x",
];
const SHMEM_SINCE: (u32, u32) = (6, 12);

/// Whether the driver with this `id` shows a wrong picture after a pan on this kernel
/// release (as in utsname, "6.1.0-28-amd64").
pub fn is_pan_broken(id: &str, release: &str) -> bool {
    let is_among = |drivers: &[&str]| drivers.iter().any(|driver| is_id_of(id, driver));
    is_among(SHADOWED) || (is_among(SHADOWED_ONCE) && version(release) < SHMEM_SINCE)
}

/// Whether `id` is what drm_fb_helper_fill_info makes of the name of a driver: the name and "drmfb", cut to
/// the 15 bytes that fb_fix_screeninfo.id has room for.
fn is_id_of(id: &str, driver: &str) -> bool {
    const ROOM_BYTES: usize = 15;
    let whole = format!("{driver}drmfb");
    id == &whole[..whole.len().min(ROOM_BYTES)]
}

/// The first two numbers of a release; 0 for a number that is missing.
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
    fn drivers_that_are_told_of_damage_lie_under_names_that_are_cut() {
        for id in [
            "rockchipdrmfb",
            "mi0283qtdrmfb",
            "ingenic-drmdrmf",
            "panel-mipi-dbid",
        ] {
            assert!(is_pan_broken(id, "6.1"), "{id}");
            assert!(is_pan_broken(id, "6.12.57"), "{id}");
        }
        assert!(!is_pan_broken("panel-mipi-dbi", "6.1"));
    }

    #[test]
    fn drivers_that_scan_their_memory_out_are_believed() {
        for id in ["vkmsdrmfb", "CL Picasso4", "pl111drmfb", "virtio_gpu", ""] {
            assert!(!is_pan_broken(id, "6.1"), "{id}");
        }
    }
}
