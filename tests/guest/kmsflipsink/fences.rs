// SPDX-License-Identifier: MPL-2.0
//! Frames whose memory has fences that a test signals (sw_sync): the display shows what was there before until then.

use std::fs::{File, OpenOptions};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

use crate::client::Client;
use crate::frames::{assert_on_screen, dma_frame, numbered};
use crate::support::kernel_log::KernelLog;
use crate::support::player::{Player, init};
use crate::support::{Picture, VkmsCrc};

/// struct sw_sync_create_fence_data (drivers/dma-buf/sw_sync.c)
#[repr(C)]
struct SwSyncCreateFenceData {
    value: u32,
    name: [u8; 32],
    fence: i32,
}

/// struct dma_buf_import_sync_file (linux/dma-buf.h)
#[repr(C)]
struct DmaBufImportSyncFile {
    flags: u32,
    fd: i32,
}
const DMA_BUF_SYNC_WRITE: u32 = 2;

nix::ioctl_readwrite!(sw_sync_ioc_create_fence, b'W', 0, SwSyncCreateFenceData);
nix::ioctl_write_ptr!(sw_sync_ioc_inc, b'W', 1, u32);
nix::ioctl_write_ptr!(
    dma_buf_ioctl_import_sync_file,
    b'b',
    3,
    DmaBufImportSyncFile
);

/// A timeline of sw_sync with one fence.
struct Timeline {
    file: File,
    fence: OwnedFd,
}

impl Timeline {
    fn new() -> Self {
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true);
        let file = file.open("/sys/kernel/debug/sync/sw_sync").unwrap();
        let mut data = SwSyncCreateFenceData {
            value: 1,
            name: [0; 32],
            fence: -1,
        };
        // SAFETY: `data` is of the kernel's layout, and lives during the call.
        unsafe { sw_sync_ioc_create_fence(file.as_raw_fd(), &raw mut data) }.unwrap();
        // SAFETY: the kernel has just made this fd for the caller.
        let fence = unsafe { OwnedFd::from_raw_fd(data.fence) };
        Self { file, fence }
    }

    fn signal(&self) {
        // SAFETY: the kernel reads a u32.
        unsafe { sw_sync_ioc_inc(self.file.as_raw_fd(), &1) }.unwrap();
    }
}

/// A frame in a dma-buf that a device seems to write to until these fences are signalled.
fn frame_written_until(picture: &Picture, timelines: &[&Timeline]) -> gst::Buffer {
    let frame = dma_frame(picture);
    let memory = frame.peek_memory(0);
    let dma_buf = memory.downcast_memory_ref::<gst_allocators::DmaBufMemory>();
    let dma_buf = dma_buf.unwrap().fd();
    for timeline in timelines {
        let import = DmaBufImportSyncFile {
            flags: DMA_BUF_SYNC_WRITE,
            fd: timeline.fence.as_raw_fd(),
        };
        // SAFETY: `import` is of the kernel's layout, and lives during the call.
        unsafe { dma_buf_ioctl_import_sync_file(dma_buf, &raw const import) }.unwrap();
    }
    frame
}

/// Fails if one of the next pictures on the screen is another one.
#[track_caller]
fn assert_stays(picture: &Picture) {
    let expected = picture.vkms_crc();
    assert_on_screen(picture);
    let mut stream = VkmsCrc::open();
    let shown = std::iter::repeat_with(|| stream.next()).flatten().take(10);
    for crc in shown.map(|shown| shown.crc) {
        assert_eq!(crc, expected, "{crc:08x} in place of {expected:08x}");
    }
}

/// A player that shows `picture`.
fn showing(picture: &Picture, sink: &str) -> Player {
    let player = Player::playing(sink);
    player.show(dma_frame(picture));
    assert_on_screen(picture);
    player
}

/// Pushes `after` with a fence while `before` is on the screen, and signals the fence.
#[track_caller]
fn assert_waits_for_its_fence(player: &Player, before: &Picture, after: &Picture) {
    let timeline = Timeline::new();
    player.push(frame_written_until(after, &[&timeline]));
    assert_stays(before);
    timeline.signal();
    assert_on_screen(after);
    player.wait_shown(2);
    assert_eq!(player.errors(), [""; 0]);
}

#[test]
fn a_frame_is_not_shown_before_its_fence_is_signalled() {
    init();
    let _log = KernelLog::watch();
    let [before, after] = [1, 2].map(|number| numbered(640, 480, number));
    let player = showing(&before, "");
    assert_waits_for_its_fence(&player, &before, &after);
    player.assert_zero_copy(2);
}

#[test]
fn a_frame_waits_for_all_fences_of_its_memory() {
    init();
    let _log = KernelLog::watch();
    let [before, after] = [3, 4].map(|number| numbered(640, 480, number));
    let player = showing(&before, "");
    let timelines = [Timeline::new(), Timeline::new()];
    player.push(frame_written_until(&after, &timelines.each_ref()));
    assert_stays(&before);
    timelines[1].signal();
    assert_stays(&before);
    timelines[0].signal();
    assert_on_screen(&after);
    assert_eq!(player.errors(), [""; 0]);
}

#[test]
fn a_frame_that_is_ready_waits_for_the_one_before_it() {
    init();
    let _log = KernelLog::watch();
    let [before, slow, ready] = [5, 6, 7].map(|number| numbered(640, 480, number));
    let player = showing(&before, "");
    let timelines = [Timeline::new(), Timeline::new()];
    player.push(frame_written_until(&slow, &[&timelines[0]]));
    player.push(frame_written_until(&ready, &[&timelines[1]]));
    timelines[1].signal();
    assert_stays(&before);
    timelines[0].signal();
    assert_on_screen(&ready);
    player.wait_shown(3);
    assert_eq!(player.errors(), [""; 0]);
}

/// On such a file each commit makes a fence (OUT_FENCE_PTR), which is signalled when the frame is on the screen.
#[test]
fn on_a_file_of_the_application_frames_wait_for_their_fences_too() {
    init();
    let _log = KernelLog::watch();
    let card = Client::open();
    let [before, after] = [8, 9].map(|number| numbered(640, 480, number));
    let player = showing(&before, &format!("fd={}", card.as_fd().as_raw_fd()));
    assert_waits_for_its_fence(&player, &before, &after);
}
