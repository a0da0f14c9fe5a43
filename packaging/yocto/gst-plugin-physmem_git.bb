# SPDX-License-Identifier: MPL-2.0
# A recipe for Yocto. It needs Rust 1.92 or newer: bitbake-layers show-recipes rust says which there is.
SUMMARY = "GStreamer elements, pool and allocators for frames at known physical addresses"
DESCRIPTION = "The elements rawvideosrc, fbpansink, kmsflipsink and physmemupload, and a buffer pool over CMA, dma-heaps, \
udmabuf and huge pages whose buffers bear their physical address as a meta."
HOMEPAGE = "https://github.com/gst-plugin-physmem/gst-plugin-physmem"
SECTION = "multimedia"
LICENSE = "MPL-2.0"
LIC_FILES_CHKSUM = "file://LICENSE;md5=815ca599c9df247a0c7f619bab123dad"

DEPENDS = "gstreamer1.0 gstreamer1.0-plugins-base"

SRC_URI = "git://github.com/gst-plugin-physmem/gst-plugin-physmem.git;protocol=https;branch=main"
PV = "0.1.0+git"
# The newest; name a commit for a build that can be repeated.
SRCREV = "${AUTOREV}"

# The crates and their checksums; after a change of Cargo.lock: bitbake -c update_crates gst-plugin-physmem.
require gst-plugin-physmem-crates.inc

inherit cargo cargo-update-recipe-crates pkgconfig

# The library is one file, and the plugin a link to it: with two copies in one process each GObject type would be
# registered twice.
SONAME_VERSION = "0.1"
CARGO_BUILD_FLAGS += "--lib"
# With GStreamer 1.24 or newer, for DMA_DRM caps and addresses over unixfd (or v1_26, v1_28):
# CARGO_BUILD_FLAGS += "--features v1_24"
# The crate io-uring checks the layout of its structs on 64-bit machines only. The kernel's are the same everywhere.
RUSTFLAGS:append:arm = " --cfg io_uring_skip_arch_check"

do_install() {
    install -d ${D}${libdir}/gstreamer-1.0 ${D}${includedir}/gstphysmem ${D}${libdir}/pkgconfig
    install -m 0755 ${B}/target/${CARGO_TARGET_SUBDIR}/libgstphysmem.so ${D}${libdir}/libgstphysmem.so.${SONAME_VERSION}
    ln -s libgstphysmem.so.${SONAME_VERSION} ${D}${libdir}/libgstphysmem.so
    ln -s ../libgstphysmem.so.${SONAME_VERSION} ${D}${libdir}/gstreamer-1.0/libgstphysmem.so
    install -m 0644 ${S}/include/gstphysmem.h ${D}${includedir}/gstphysmem/
    cat > ${D}${libdir}/pkgconfig/gstphysmem.pc <<EOF
prefix=${prefix}
libdir=${libdir}
includedir=${includedir}

Name: gstphysmem
Description: GStreamer buffer pool, meta and allocators for frames at known physical addresses
Version: ${SONAME_VERSION}.0
Requires: gstreamer-1.0
Requires.private: gstreamer-base-1.0, gstreamer-video-1.0, gstreamer-allocators-1.0
Libs: -L${libdir} -lgstphysmem
Cflags: -I${includedir}/gstphysmem
EOF
    install -D -m 0644 ${S}/packaging/udev/60-physmem.rules ${D}${nonarch_base_libdir}/udev/rules.d/60-physmem.rules
}

# The plugin's link would otherwise count as one for development.
FILES:${PN} += "${libdir}/gstreamer-1.0/libgstphysmem.so ${nonarch_base_libdir}/udev/rules.d"
FILES_SOLIBSDEV = "${libdir}/libgstphysmem.so"
