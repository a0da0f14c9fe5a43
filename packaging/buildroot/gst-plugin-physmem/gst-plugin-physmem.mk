################################################################################
#
# gst-plugin-physmem
#
################################################################################

GST_PLUGIN_PHYSMEM_VERSION = main
GST_PLUGIN_PHYSMEM_SITE = https://github.com/gst-plugin-physmem/gst-plugin-physmem.git
GST_PLUGIN_PHYSMEM_SITE_METHOD = git
GST_PLUGIN_PHYSMEM_LICENSE = MPL-2.0
GST_PLUGIN_PHYSMEM_LICENSE_FILES = LICENSE
GST_PLUGIN_PHYSMEM_INSTALL_STAGING = YES
GST_PLUGIN_PHYSMEM_DEPENDENCIES = host-pkgconf gstreamer1 gst1-plugins-base

# With GStreamer 1.24 or newer add: --features v1_24 (or v1_26, v1_28), for
# DMA_DRM caps and addresses over unixfd.
GST_PLUGIN_PHYSMEM_CARGO_BUILD_OPTS = --lib

# The crate io-uring checks the layout of its structs on 64-bit machines only.
# The kernel's are the same everywhere.
ifeq ($(BR2_arm),y)
GST_PLUGIN_PHYSMEM_CARGO_ENV = RUSTFLAGS="--cfg io_uring_skip_arch_check"
endif

# The library is one file, and the plugin a link to it: with two copies in one
# process each GObject type would be registered twice.
GST_PLUGIN_PHYSMEM_ABI = 0.1
define GST_PLUGIN_PHYSMEM_INSTALL_LIBRARY
	$(INSTALL) -D -m 0755 $(@D)/target/$(RUSTC_TARGET_NAME)/release/libgstphysmem.so \
		$(1)/usr/lib/libgstphysmem.so.$(GST_PLUGIN_PHYSMEM_ABI)
	ln -sf libgstphysmem.so.$(GST_PLUGIN_PHYSMEM_ABI) $(1)/usr/lib/libgstphysmem.so
endef

define GST_PLUGIN_PHYSMEM_INSTALL_STAGING_CMDS
	$(call GST_PLUGIN_PHYSMEM_INSTALL_LIBRARY,$(STAGING_DIR))
	$(INSTALL) -D -m 0644 $(@D)/include/gstphysmem.h \
		$(STAGING_DIR)/usr/include/gstphysmem/gstphysmem.h
endef

define GST_PLUGIN_PHYSMEM_INSTALL_TARGET_CMDS
	$(call GST_PLUGIN_PHYSMEM_INSTALL_LIBRARY,$(TARGET_DIR))
	mkdir -p $(TARGET_DIR)/usr/lib/gstreamer-1.0
	ln -sf ../libgstphysmem.so.$(GST_PLUGIN_PHYSMEM_ABI) \
		$(TARGET_DIR)/usr/lib/gstreamer-1.0/libgstphysmem.so
	$(INSTALL) -D -m 0644 $(@D)/packaging/udev/60-physmem.rules \
		$(TARGET_DIR)/usr/lib/udev/rules.d/60-physmem.rules
endef

$(eval $(cargo-package))
