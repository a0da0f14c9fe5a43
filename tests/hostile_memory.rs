// SPDX-License-Identifier: MPL-2.0
//! Memory of another process that is not what was said of it: files of other kinds, too short, or cut while they are
//! read. unixfdsrc makes such memory of any descriptor and size that it is sent, without a look at the file. The
//! elements that copy it post an error, and no fault ends the process. tests/unixfd_peer.rs has the real unixfdsrc.

mod common;

use std::{
    fs::File,
    os::fd::{IntoRawFd, OwnedFd},
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use gst::prelude::*;
use gst_allocators::prelude::*;

use common::memfd;

const SIZE: usize = 64 * 64 * 4;
const VIDEO: &str = "video/x-raw,format=BGRx,width=64,height=64,framerate=25/1";
const TIMEOUT: gst::ClockTime = gst::ClockTime::from_seconds(60); // against hangs only

fn init() {
    static INIT: std::sync::Once = std::sync::Once::new();
    INIT.call_once(|| {
        gst::init().unwrap();
        gstphysmem::plugin_register_static().unwrap();
    });
}

/// A buffer over a descriptor, as unixfdsrc makes it.
fn buffer(file: impl Into<OwnedFd>, size: usize) -> gst::Buffer {
    let allocator = gst_allocators::FdAllocator::new();
    let fd = file.into().into_raw_fd();
    // SAFETY: the memory closes the descriptor, which nothing else has.
    let memory = unsafe { allocator.alloc_fd(fd, size, gst_allocators::FdMemoryFlags::empty()) };
    let mut buffer = gst::Buffer::new();
    buffer.get_mut().unwrap().append_memory(memory.unwrap());
    buffer
}

/// Sends buffers through physmemupload. Returns the error that is posted, or none if all arrive.
fn upload(caps: &str, buffers: impl IntoIterator<Item = gst::Buffer>) -> Option<String> {
    let line = format!(
        "appsrc name=in format=time caps={caps} ! physmemupload kind=normal ! fakesink sync=false"
    );
    let pipeline = gst::parse::launch(&line)
        .unwrap()
        .downcast::<gst::Pipeline>()
        .unwrap();
    let appsrc = pipeline
        .by_name("in")
        .unwrap()
        .downcast::<gst_app::AppSrc>()
        .unwrap();
    pipeline.set_state(gst::State::Playing).unwrap();
    for buffer in buffers {
        // After an error, the rest is refused.
        let _ = appsrc.push_buffer(buffer);
    }
    let _ = appsrc.end_of_stream();
    let bus = pipeline.bus().unwrap();
    let ends = [gst::MessageType::Error, gst::MessageType::Eos];
    let message = bus.timed_pop_filtered(TIMEOUT, &ends).expect("an end");
    let error = match message.view() {
        gst::MessageView::Error(error) => Some(error.error().to_string()),
        _ => None,
    };
    pipeline.set_state(gst::State::Null).unwrap();
    error
}

#[test]
fn memory_that_is_there_is_copied() {
    init();
    for caps in [VIDEO, "application/x-test"] {
        assert_eq!(upload(caps, [buffer(memfd(SIZE as u64), SIZE)]), None);
    }
}

#[test]
fn a_file_that_is_shorter_than_was_said_is_an_error_in_words() {
    init();
    for caps in [VIDEO, "application/x-test"] {
        for size in [0, 1, 4096] {
            let regular = tempfile::tempfile().unwrap();
            regular.set_len(size).unwrap();
            for file in [memfd(size), regular] {
                let error = upload(caps, [buffer(file, SIZE)]).expect("an error");
                assert!(error.contains("shorter than was said"), "{error}");
            }
        }
        let cut = memfd(SIZE as u64);
        let sent = buffer(cut.try_clone().unwrap(), SIZE);
        cut.set_len(0).unwrap();
        let error = upload(caps, [sent]).expect("an error");
        assert!(error.contains("F_SEAL_SHRINK"), "{error}");
    }
}

#[test]
fn what_is_no_memory_is_an_error_in_words() {
    init();
    for caps in [VIDEO, "application/x-test"] {
        let (pipe, _writer) = nix::unistd::pipe().unwrap();
        let open = |path: &str| OwnedFd::from(File::open(path).unwrap());
        for file in [open("/"), open("/dev/null"), open("/proc/self/maps"), pipe] {
            let error = upload(caps, [buffer(file, SIZE)]).expect("an error");
            assert!(error.contains("cannot be mapped"), "{error}");
        }
    }
}

#[test]
fn more_than_the_caps_or_less_is_no_fault() {
    init();
    for size in [1, SIZE - 1, SIZE + 1, 1 << 33] {
        // The memory of 8 GiB is a file of holes, of which a frame is read.
        let error = upload(VIDEO, [buffer(memfd(size as u64), size)]);
        assert_eq!(error.is_none(), size >= SIZE, "{size}: {error:?}");
    }
}

#[test]
fn a_sender_that_cuts_and_grows_its_file_all_the_time_is_survived() {
    init();
    let file = memfd(SIZE as u64);
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                file.set_len(0).unwrap();
                file.set_len(SIZE as u64).unwrap();
            }
        });
        for _ in 0..20 {
            let buffers = (0..20).map(|_| buffer(file.try_clone().unwrap(), SIZE));
            if let Some(error) = upload(VIDEO, buffers) {
                assert!(error.contains("F_SEAL_SHRINK"), "{error}");
            }
        }
        is_over.store(true, Ordering::Relaxed);
    });
}
