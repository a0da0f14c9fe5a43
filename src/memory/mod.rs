// SPDX-License-Identifier: MPL-2.0
//! Memory kinds, their physical extents, and the GstAllocators over them.
