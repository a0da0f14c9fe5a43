// SPDX-License-Identifier: MPL-2.0
//! Kernel interfaces: the only home of ioctl and mmap. Names are the kernel's
//! own; everything returns `io::Result` and is translated above.
