// SPDX-License-Identifier: MPL-2.0
//! Who is DRM master: other programs, virtual terminals, and what is on the screen afterwards.

use std::fs;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::process::ExitStatusExt;
use std::process::Stdio;
use std::time::{Duration, Instant};

use drm::Device as _;
use drm::buffer::Buffer as _;
use drm::control::dumbbuffer::DumbBuffer;
use drm::control::{Device as _, Event};
use gst::prelude::*;
use gst_allocators::prelude::*;

use super::{H, W, assert_warned_and_dropped, bgrx_player};
use crate::client::Client;
use crate::frames::{
    assert_crc, assert_on_screen, bgrx, bgrx_bytes, buffer_of, centred, crc_now, dma_frame,
    numbered,
};
use crate::support::player::{Player, init};
use crate::support::{self, Picture, VkmsCrc, switch_vt};

#[test]
fn what_was_on_the_screen_comes_back() {
    init();
    let console = crc_now();
    for restart in 0..3 {
        let player = bgrx_player();
        player.set_state(gst::State::Playing);
        let picture = numbered(W, H, restart);
        player.show(buffer_of(&picture));
        assert_on_screen(&picture);
        player.reach(gst::State::Null);
        drop(player);
        assert_crc(console);
    }
}

#[test]
fn caps_that_change_behind_another_virtual_terminal_are_shown_back_in_front() {
    init();
    let home = fs::read_to_string("/sys/class/tty/tty0/active").unwrap();
    let player = bgrx_player();
    player.set_state(gst::State::Playing);
    player.show(buffer_of(&numbered(W, H, 1)));
    switch_vt(if home.trim() == "tty2" {
        "tty3"
    } else {
        "tty2"
    });
    player.wait_for_event("master-lost");
    let small = numbered(320, 240, 2);
    player.set_caps(&bgrx(320, 240));
    player.push(buffer_of(&small));
    assert_warned_and_dropped(&player, &small, "dropped-no-master");
    switch_vt(home.trim());
    player.wait_for_event("master-regained");
    player.show(buffer_of(&small));
    assert_on_screen(&centred(&small, W, H));
    assert_eq!(player.errors(), [""; 0]);
}

/// Opens the card and so becomes DRM master, if there is none.
fn open_card_as_master() -> fs::File {
    fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/dri/card0")
        .unwrap()
}

#[test]
fn a_card_with_another_master_is_refused_with_a_reason() {
    init();
    let rival = open_card_as_master();
    let player = bgrx_player();
    assert!(player.pipeline.set_state(gst::State::Playing).is_err());
    let error = player.wait_for_error();
    assert!(
        error.contains("another program is DRM master of /dev/dri/card0"),
        "{error}"
    );
    assert!(player.errors().is_empty(), "one error is enough");
    drop(rival);
    player.reach(gst::State::Null);
    player.set_state(gst::State::Playing);
    let picture = numbered(W, H, 4);
    player.show(buffer_of(&picture));
    assert_on_screen(&picture);
}

#[test]
fn an_fd_of_the_application_is_used_and_left_open() {
    init();
    let card = open_card_as_master();
    for number in 0..2 {
        let player = Player::with_appsrc(&format!("mode=640x480 fd={}", card.as_raw_fd()));
        player.set_caps(&bgrx(W as u32, H as u32));
        player.set_state(gst::State::Playing);
        let picture = numbered(W, H, number);
        player.show(buffer_of(&picture));
        assert_on_screen(&picture);
    }
    assert!(card.metadata().is_ok());
}

/// A sink has the card of the application without a property, by the context that the pipeline hands on. Other elements
/// learn by a query which card that is.
#[test]
fn a_context_passes_the_applications_card_to_the_sinks_of_a_pipeline() {
    init();
    let card = open_card_as_master();
    let player = Player::with_appsrc("mode=640x480");
    let mut context = gst::Context::new("physmem.drm.device", true);
    let structure = context.get_mut().unwrap().structure_mut();
    structure.set("fd", card.as_raw_fd());
    player.pipeline.set_context(&context);
    player.set_caps(&bgrx(W as u32, H as u32));
    player.set_state(gst::State::Playing);
    let picture = numbered(W, H, 7);
    player.show(buffer_of(&picture));
    assert_on_screen(&picture);
    // A file that the sink opened would not have become master beside that of the application.
    assert_eq!(player.errors(), [""; 0]);
    let mut query = gst::query::Context::new("physmem.drm.device");
    assert!(player.sink.query(&mut query));
    let mut of_pad = gst::query::Context::new("physmem.drm.device");
    assert!(
        player
            .appsrc()
            .static_pad("src")
            .unwrap()
            .peer_query(&mut of_pad)
    );
    let answer = query.context_owned().unwrap();
    let field = |name| answer.structure().get::<String>(name).unwrap();
    assert_eq!(field("device"), player.text("device"));
    assert_eq!(field("driver"), "vkms");
    let fd: i32 = answer.structure().get("fd").unwrap();
    // SAFETY: `answer` keeps the fd open.
    let shared = unsafe { std::os::fd::BorrowedFd::borrow_raw(fd) };
    let number = |stat: rustix::fs::Stat| (stat.st_rdev, stat.st_ino);
    assert_eq!(
        number(rustix::fs::fstat(shared).unwrap()),
        number(rustix::fs::fstat(&card).unwrap())
    );
}

#[test]
fn a_card_that_the_sink_opened_is_told_without_its_file() {
    let player = Player::playing("");
    player.show(buffer_of(&numbered(W, H, 8)));
    let mut query = gst::query::Context::new("physmem.drm.device");
    assert!(player.sink.query(&mut query));
    let answer = query.context_owned().unwrap();
    assert!(!answer.structure().has_field("fd"));
    assert_eq!(
        answer.structure().get::<String>("device"),
        Ok(player.text("device"))
    );
    player.reach(gst::State::Null);
    assert!(
        !player
            .sink
            .query(&mut gst::query::Context::new("physmem.drm.device"))
    );
}

/// A frame in a dumb buffer of the application's, with its GEM handle and a dma-buf.
fn frame_of_the_application(card: &Client, picture: &Picture) -> (DumbBuffer, gst::Buffer) {
    let mut dumb = card.dumb(W as u32, H as u32);
    let bytes = bgrx_bytes(picture, dumb.pitch() as usize);
    card.map_dumb_buffer(&mut dumb).unwrap()[..bytes.len()].copy_from_slice(&bytes);
    let fd = card
        .buffer_to_prime_fd(dumb.handle(), drm::CLOEXEC | drm::RDWR)
        .unwrap();
    let allocator = gst_allocators::DmaBufAllocator::new();
    // SAFETY: a dma-buf of this size that the memory now owns.
    let memory = unsafe { allocator.alloc_dmabuf(fd, bytes.len()) }.unwrap();
    let mut buffer = gst::Buffer::new();
    buffer.get_mut().unwrap().append_memory(memory);
    (dumb, buffer)
}

#[test]
fn the_application_keeps_its_gem_handles_on_the_fd_that_it_gives() {
    init();
    let card = Client::open();
    let picture = numbered(W, H, 6);
    let (mut dumb, buffer) = frame_of_the_application(&card, &picture);
    let player = Player::playing(&format!("fd={}", card.as_fd().as_raw_fd()));
    player.show(buffer);
    assert_on_screen(&picture);
    assert_eq!(player.count("zero-copy"), 1, "{}", player.stats());
    assert!(
        card.map_dumb_buffer(&mut dumb).is_ok(),
        "while the sink plays"
    );
    drop(player);
    assert!(card.map_dumb_buffer(&mut dumb).is_ok(), "afterwards");
}

#[test]
fn the_application_gets_the_events_on_the_fd_that_it_gives() {
    init();
    let card = Client::open();
    let player = Player::playing(&format!("fd={}", card.as_fd().as_raw_fd()));
    player.show(buffer_of(&numbered(W, H, 1)));
    for number in 0..8 {
        let target = drm::VblankWaitTarget::Relative(1);
        card.wait_vblank(target, drm::VblankWaitFlags::EVENT, 0, 1000 + number)
            .unwrap();
        player.push(buffer_of(&numbered(W, H, number)));
        let events: Vec<_> = card.receive_events().unwrap().collect();
        let [Event::Vblank(event)] = &events[..] else {
            panic!("{} events, of which one is asked for", events.len());
        };
        assert_eq!(event.user_data, 1000 + number);
    }
    let picture = numbered(W, H, 20);
    player.show(buffer_of(&picture));
    assert_on_screen(&picture);
    assert_eq!(
        (player.count("lost-flip-events"), player.errors().len()),
        (0, 0)
    );
}

/// As seatd and logind do when another session comes to the foreground.
#[test]
fn a_session_manager_may_take_the_card_and_give_it_back() {
    init();
    let card = Client::open();
    let player = Player::playing(&format!("fd={}", card.as_fd().as_raw_fd()));
    player.show(buffer_of(&numbered(W, H, 1)));
    card.release_master_lock().unwrap();
    player.push(buffer_of(&numbered(W, H, 2)));
    player.wait_for_event("master-lost");
    card.acquire_master_lock().unwrap();
    player.wait_for_event("master-regained");
    let picture = numbered(W, H, 3);
    player.show(buffer_of(&picture));
    assert_on_screen(&picture);
    assert_eq!(player.errors(), [""; 0]);
}

#[test]
fn a_lease_is_played_into_until_it_is_revoked() {
    init();
    let card = Client::open();
    let lease = card.lease();
    let fd = lease.1.as_raw_fd();
    let player = Player::with_appsrc(&format!("mode=640x480 fd={fd}"));
    player.set_caps(&bgrx(W as u32, H as u32));
    player.set_state(gst::State::Playing);
    let picture = numbered(W, H, 5);
    player.show(buffer_of(&picture));
    assert_on_screen(&picture);
    card.revoke_lease(lease.0).unwrap();
    // The kernel refuses the first frame, and the sink does not take the second one.
    for _ in 0..2 {
        let _ = player.appsrc().push_buffer(buffer_of(&picture));
    }
    let error = player.wait_for_error();
    assert!(
        error.contains("revoked (No such file or directory (ENOENT))"),
        "{error}"
    );
    assert!(error.contains("drmModeCreateLease"), "{error}");
    player.reach(gst::State::Null);
    assert_eq!(player.errors(), [""; 0], "one error is enough");
}

/// The kernel tells of no lease that is revoked, so the sink learns it from the next frame.
#[test]
fn after_a_lease_was_revoked_the_next_one_is_played_into() {
    init();
    let card = Client::open();
    let lease = card.lease();
    let player = Player::playing(&format!("fd={}", lease.1.as_raw_fd()));
    player.show(buffer_of(&numbered(W, H, 1)));
    card.revoke_lease(lease.0).unwrap();
    let picture = numbered(W, H, 2);
    for _ in 0..2 {
        let _ = player.appsrc().push_buffer(buffer_of(&picture));
    }
    let error = player.wait_for_error();
    assert!(error.contains("is gone"), "{error}");
    player.reach(gst::State::Null);
    let next = card.lease();
    player.sink.set_property("fd", next.1.as_raw_fd());
    player.set_state(gst::State::Playing);
    player.show(buffer_of(&picture));
    assert_on_screen(&picture);
    assert_eq!(player.errors(), [""; 0]);
}

#[test]
fn another_virtual_terminal_gets_the_screen_and_gives_it_back() {
    init();
    let console = crc_now();
    let home = fs::read_to_string("/sys/class/tty/tty0/active").unwrap();
    let player = bgrx_player();
    player.set_state(gst::State::Playing);
    let picture = numbered(W, H, 6);
    player.show(buffer_of(&picture));
    let away = if home.trim() == "tty2" {
        "tty3"
    } else {
        "tty2"
    };
    switch_vt(away);
    player.wait_for_event("master-lost");
    let rival = open_card_as_master();
    drop(rival);
    assert_crc(console);
    player.push(buffer_of(&picture));
    player.push(buffer_of(&picture));
    player.wait_until("dropped frames", |player| {
        player.count("dropped-no-master") >= 1
    });
    switch_vt(home.trim());
    player.wait_for_event("master-regained");
    player.show(buffer_of(&picture));
    assert_on_screen(&picture);
    assert!(player.errors().is_empty());
}

/// A child process that is killed on drop, because it would keep the card.
struct KilledOnDrop(std::process::Child);

impl Drop for KilledOnDrop {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A player whose controlling terminal is `terminal`, as if it was started there.
fn player_on(terminal: &str) -> KilledOnDrop {
    let launch = support::gst_launch("rawvideosrc ! kmsflipsink mode=640x480");
    let terminal = format!("/dev/{terminal}");
    let mut options = fs::OpenOptions::new();
    let terminal = options.read(true).write(true).open(terminal).unwrap();
    let child = std::process::Command::new("setsid")
        .arg("--ctty")
        .arg(launch.get_program())
        .args(launch.get_args())
        .stdin(terminal)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    KilledOnDrop(child.unwrap())
}

/// Waits until the screen shows something else than `console`.
#[track_caller]
fn wait_for_frames(console: u32) {
    let deadline = Instant::now() + Duration::from_secs(60);
    // The CRC stream allows one reader, so it is closed at the end.
    let mut stream = VkmsCrc::open();
    while stream.next().is_none_or(|frame| frame.crc == console) {
        assert!(Instant::now() < deadline, "the child shows nothing");
    }
}

/// Begins a switch to a virtual terminal, and waits until the kernel has made it.
fn switch_and_wait(terminal: &str) {
    const VT_ACTIVATE: libc::c_ulong = 0x5606;
    const VT_WAITACTIVE: libc::c_ulong = 0x5607;
    let console = fs::File::open("/dev/tty0").unwrap();
    let number: libc::c_int = terminal.trim_start_matches("tty").parse().unwrap();
    for request in [VT_ACTIVATE, VT_WAITACTIVE] {
        // SAFETY: both take the number by value.
        let result = unsafe { libc::ioctl(console.as_raw_fd(), request as _, number) };
        assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
    }
}

#[test]
fn the_card_is_free_when_another_virtual_terminal_is_shown() {
    init();
    const DRM_IOCTL_SET_MASTER: libc::c_ulong = 0x641e;
    let console = crc_now();
    let home = support::foreground_vt();
    let away = if home == "tty2" { "tty3" } else { "tty2" };
    let player = player_on(&home);
    for round in 0..5 {
        wait_for_frames(console);
        switch_and_wait(away);
        let rival = open_card_as_master();
        // SAFETY: the request has no argument.
        let result = unsafe { libc::ioctl(rival.as_raw_fd(), DRM_IOCTL_SET_MASTER as _, 0) };
        let error = std::io::Error::last_os_error();
        assert_eq!(result, 0, "round {round}: {error}");
        drop(rival);
        assert_crc(console);
        switch_and_wait(&home);
    }
    wait_for_frames(console);
    drop(player);
    // The process that held the terminal for the player lets the console be shown again.
    assert_crc(console);
    switch_and_wait(away);
    switch_and_wait(&home);
}

#[test]
fn a_player_that_is_killed_leaves_the_console_and_the_next_one_works() {
    init();
    let console = crc_now();
    let line = "rawvideosrc ! kmsflipsink mode=640x480";
    let child = support::gst_launch(line)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut child = KilledOnDrop(child);
    wait_for_frames(console);
    child.0.kill().unwrap();
    assert_eq!(child.0.wait().unwrap().signal(), Some(9));
    assert_crc(console);
    let player = bgrx_player();
    player.set_state(gst::State::Playing);
    let picture = numbered(W, H, 8);
    player.show(buffer_of(&picture));
    assert_on_screen(&picture);
}

#[test]
fn whoever_comes_while_another_leaves_gets_the_card() {
    // The thread of the card ends after its last sink has gone, and only then closes the card.
    let player = bgrx_player();
    let frames = [1, 2].map(|number| dma_frame(&numbered(W, H, number)));
    for round in 0..50 {
        player.set_state(gst::State::Playing);
        player.show(frames[round % 2].clone());
        player.reach(gst::State::Null);
    }
    assert_eq!(player.errors(), Vec::<String>::new());
}
