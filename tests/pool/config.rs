// SPDX-License-Identifier: MPL-2.0
//! Configurations that a pool accepts, corrects or refuses.

use gst::prelude::*;
use gst_video::prelude::*;
use gstphysmem::layout::Layout;
use gstphysmem::memory::MemoryKind;
use gstphysmem::pool::{PhysBufferPool, Reuse, Slots};

use crate::{active_pool, bgrx, bgrx_info, configure, id, pages};

#[test]
fn video_alignment_is_in_the_buffers_meta() {
    gst::init().unwrap();
    let pool = PhysBufferPool::builder().kind(MemoryKind::Normal).build();
    let mut config = pool.config();
    config.set_params(Some(&bgrx(100, 50)), 0, 1, 2);
    config.add_option(gst_video::BUFFER_POOL_OPTION_VIDEO_META);
    config.add_option(gst_video::BUFFER_POOL_OPTION_VIDEO_ALIGNMENT);
    config.set_video_alignment(&gst_video::VideoAlignment::new(4, 2, 8, 8, &[63; 4]));
    pool.set_config(config).unwrap();
    pool.set_active(true).unwrap();
    let buffer = pool.acquire_buffer(None).unwrap();
    let meta = buffer.meta::<gst_video::VideoMeta>().unwrap();
    assert_eq!(meta.stride()[0] % 64, 0);
    assert!(meta.stride()[0] >= (100 + 16) * 4);
    assert!(meta.offset()[0] >= 4 * meta.stride()[0] as usize);
    assert!(buffer.size() >= 56 * meta.stride()[0] as usize);
}

#[test]
fn padded_rows_without_video_meta_are_refused_and_the_config_says_what_is_missing() {
    gst::init().unwrap();
    let pool = PhysBufferPool::builder().kind(MemoryKind::Normal).build();
    let mut config = pool.config();
    config.set_params(Some(&bgrx(100, 50)), 0, 1, 2);
    config.add_option(gst_video::BUFFER_POOL_OPTION_VIDEO_ALIGNMENT);
    config.set_video_alignment(&gst_video::VideoAlignment::new(0, 0, 0, 8, &[63; 4]));
    assert!(pool.set_config(config).is_err());
    let corrected = pool.config();
    assert!(corrected.has_option(gst_video::BUFFER_POOL_OPTION_VIDEO_META));
    pool.set_config(corrected).unwrap();
}

#[test]
fn several_activations_with_other_sizes() {
    let pool = active_pool(4096, 1, 2);
    let first = id(&pool.acquire_buffer(None).unwrap());
    pool.set_active(false).unwrap();
    assert_eq!(pool.total_count(), 0, "stopping frees owned memory");
    configure(&pool, None, 123_456, 2, 2);
    pool.set_active(true).unwrap();
    let buffer = pool.acquire_buffer(None).unwrap();
    assert_eq!(buffer.size(), 123_456);
    assert_ne!(id(&buffer), first);
}

#[test]
fn existing_memory_serves_no_more_buffers_than_there_are() {
    gst::init().unwrap();
    let slots = Slots::new(pages(2, 4096), Reuse::MostRecent);
    let pool = PhysBufferPool::over(&slots, None);
    let mut config = pool.config();
    config.set_params(None, 4096, 5, 0);
    assert!(pool.set_config(config).is_err());
    assert_eq!(pool.config().params().unwrap().2, 2);
    let mut config = pool.config();
    config.set_params(None, 5000, 0, 0);
    assert!(pool.set_config(config).is_err(), "larger than a page");
}

#[test]
fn a_padded_existing_layout_is_in_the_video_meta() {
    gst::init().unwrap();
    let slots = Slots::new(pages(2, 1 << 16), Reuse::MostRecent);
    let layout = Layout::custom(&bgrx_info(100, 50), &[512], &[100], 512 * 50).unwrap();
    let pool = PhysBufferPool::over(&slots, Some(layout));
    let mut config = pool.config();
    config.set_params(Some(&bgrx(100, 50)), 0, 1, 0);
    config.add_option(gst_video::BUFFER_POOL_OPTION_VIDEO_META);
    pool.set_config(config).unwrap();
    pool.set_active(true).unwrap();
    let buffer = pool.acquire_buffer(None).unwrap();
    let meta = buffer.meta::<gst_video::VideoMeta>().unwrap();
    assert_eq!((meta.stride()[0], meta.offset()[0]), (512, 100));
    assert_eq!(buffer.size(), 512 * 50);
}

#[test]
fn caps_that_do_not_fit_a_fixed_layout_are_refused() {
    gst::init().unwrap();
    let slots = Slots::new(pages(2, 1 << 16), Reuse::MostRecent);
    let layout = Layout::custom(&bgrx_info(100, 50), &[512], &[0], 512 * 50).unwrap();
    for (width, height) in [(129, 50), (128, 51), (1920, 1080)] {
        let pool = PhysBufferPool::over(&slots, Some(layout));
        let mut config = pool.config();
        config.set_params(Some(&bgrx(width, height)), 0, 1, 0);
        config.add_option(gst_video::BUFFER_POOL_OPTION_VIDEO_META);
        assert!(pool.set_config(config).is_err(), "{width}x{height}");
    }
}

#[test]
fn a_pool_of_external_memory_without_any_says_so() {
    gst::init().unwrap();
    let pool = PhysBufferPool::builder().kind(MemoryKind::External).build();
    let mut config = pool.config();
    config.set_params(None, 64, 0, 0);
    assert!(pool.set_config(config).is_err());
    let said = pool.last_error().unwrap();
    assert!(said.contains("no memory to serve buffers from"), "{said}");
}

#[test]
fn a_name_that_does_not_exist_fails_in_words() {
    gst::init().unwrap();
    let pool = PhysBufferPool::builder()
        .kind(MemoryKind::Cma)
        .heap("no-such-heap")
        .build();
    configure(&pool, None, 4096, 1, 1);
    assert!(pool.set_active(true).is_err());
    assert!(pool.last_error().unwrap().contains("no-such-heap"));
}

#[test]
fn a_config_that_was_not_taken_says_why_and_one_that_was_forgets_it() {
    gst::init().unwrap();
    let pool = PhysBufferPool::builder().kind(MemoryKind::Normal).build();
    let mut config = pool.config();
    config.set_params(None, 0, 0, 0);
    assert!(pool.set_config(config).is_err());
    assert!(pool.last_error().unwrap().contains("the buffer size is 0"));

    let mut config = pool.config();
    config.set_params(Some(&bgrx(100, 50)), 0, 1, 2);
    config.add_option(gst_video::BUFFER_POOL_OPTION_VIDEO_ALIGNMENT);
    config.set_video_alignment(&gst_video::VideoAlignment::new(0, 0, 0, 8, &[63; 4]));
    assert!(pool.set_config(config).is_err());
    let said = pool.last_error().unwrap();
    assert!(
        said.contains("read it back") && said.contains("GstVideoMeta"),
        "{said}"
    );
    pool.set_config(pool.config()).unwrap();
    assert_eq!(pool.last_error(), None);
}

#[test]
fn a_prefix_beyond_all_memory_is_refused_in_words() {
    gst::init().unwrap();
    let pool = PhysBufferPool::builder().kind(MemoryKind::Normal).build();
    let mut config = pool.config();
    config.set_params(None, 64, 1, 1);
    let params = gst::AllocationParams::new(gst::MemoryFlags::empty(), 0, usize::MAX - 63, 0);
    config.set_allocator(None::<&gst::Allocator>, Some(&params));
    assert!(pool.set_config(config).is_err());
    let said = pool.last_error().unwrap();
    assert!(said.contains("more than an address space holds"), "{said}");
}
