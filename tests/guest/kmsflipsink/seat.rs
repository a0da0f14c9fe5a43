// SPDX-License-Identifier: MPL-2.0
//! seatd lends the card: to root, and to a user who may not open it. The lab has no logind, which libseat asks in the
//! same way.

use std::fs;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use gst::prelude::*;

use crate::frames::{assert_crc, assert_on_screen, bgrx_bytes, buffer_of, crc_now, numbered};
use crate::support::player::{LIMIT, Player, init};
use crate::support::{as_nobody, foreground_vt, gst_launch, run, switch_vt};

const W: usize = 640;
const H: usize = 480;

/// A process that ends on drop.
pub struct Running(Child);

impl Running {
    fn start(command: &mut Command) -> Self {
        let quiet = command.stdin(Stdio::null()).stdout(Stdio::null());
        Self(quiet.spawn().unwrap())
    }

    pub fn has_open(&self, path: &str) -> bool {
        let files = fs::read_dir(format!("/proc/{}/fd", self.0.id())).unwrap();
        let mut links = files.filter_map(|file| fs::read_link(file.ok()?.path()).ok());
        links.any(|link| link.as_os_str() == path)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

const CARD: &str = "/dev/dri/card0";
const SOCKET: &str = "/run/seatd.sock";

/// seatd, of whom user nobody may ask for cards.
pub fn seatd() -> Running {
    init();
    let _ = fs::remove_file(SOCKET);
    let seatd = Running::start(Command::new("seatd").args(["-u", "nobody"]));
    wait_for("the socket of seatd", || {
        // seatd changes the owner after it has made the socket.
        fs::metadata(SOCKET).is_ok_and(|socket| socket.uid() != 0)
    });
    seatd
}

#[track_caller]
fn wait_for(what: &str, is_so: impl Fn() -> bool) {
    let deadline = Instant::now() + LIMIT;
    while !is_so() {
        assert!(Instant::now() < deadline, "no {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn another_terminal() -> &'static str {
    match foreground_vt().as_str() {
        "tty2" => "tty3",
        _ => "tty2",
    }
}

/// Fails unless another program can become DRM master.
#[track_caller]
fn assert_card_is_free() {
    const DRM_IOCTL_SET_MASTER: libc::c_ulong = 0x641e;
    let mut options = fs::OpenOptions::new();
    let rival = options.read(true).write(true).open(CARD).unwrap();
    // SAFETY: the request has no argument.
    let result = unsafe { libc::ioctl(rival.as_raw_fd(), DRM_IOCTL_SET_MASTER as _, 0) };
    assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
}

#[test]
fn the_session_manager_lends_the_card_and_another_terminal_gets_it() {
    let seatd = seatd();
    let console = crc_now();
    let home = foreground_vt();
    let away = another_terminal();
    let player = Player::playing("session=libseat");
    assert!(seatd.has_open(CARD), "seatd has opened the card");
    for round in 0..3 {
        let picture = numbered(W, H, round);
        player.show(buffer_of(&picture));
        assert_on_screen(&picture);
        // seatd lets the kernel switch when the sink has let go.
        switch_vt(away);
        assert_card_is_free();
        player.wait_for_event("master-lost");
        let before = player.count("dropped-no-master");
        player.push(buffer_of(&picture));
        player.wait_until("dropped frame", |player| {
            player.count("dropped-no-master") > before
        });
        switch_vt(&home);
        player.wait_for_event("master-regained");
    }
    let picture = numbered(W, H, 9);
    player.show(buffer_of(&picture));
    assert_on_screen(&picture);
    assert_eq!(player.errors(), [""; 0]);
    drop(player);
    wait_for("end of the loan", || !seatd.has_open(CARD));
    assert_crc(console);
}

/// A frame of the pool that the sink offers.
fn offered_frame(player: &Player) -> gst::Buffer {
    let pad = player.sink.static_pad("sink").unwrap();
    let mut query = gst::query::Allocation::new(Some(&pad.current_caps().unwrap()), true);
    assert!(pad.query(&mut query));
    let pool = query.allocation_pools().next().unwrap().0.unwrap();
    pool.set_active(true).unwrap();
    pool.acquire_buffer(None).unwrap()
}

#[test]
fn the_card_is_lent_again_to_the_next_sink_although_upstream_keeps_frames_of_the_first() {
    let _seatd = seatd();
    let player = Player::playing("session=libseat memory-kind=dumb");
    player.show(buffer_of(&numbered(W, H, 1)));
    // A frame in the card's own memory, which keeps the card open.
    let kept = offered_frame(&player);
    player.reach(gst::State::Null);
    let next = Player::playing("session=libseat");
    let picture = numbered(W, H, 2);
    next.show(buffer_of(&picture));
    assert_on_screen(&picture);
    drop(kept);
}

#[test]
fn a_user_who_may_not_open_the_card_plays() {
    let seatd = seatd();
    let console = crc_now();
    let home = foreground_vt();
    let picture = numbered(W, H, 4);
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(&bgrx_bytes(&picture, W * 4)).unwrap();
    let readable = fs::Permissions::from_mode(0o644);
    file.as_file().set_permissions(readable).unwrap();
    let line = |session: &str| {
        let file = file.path().display();
        gst_launch(&format!(
            "rawvideosrc location={file} format=bgrx width={W} height={H} framerate=60/1 loop=true \
             ! kmsflipsink mode=640x480 {session}"
        ))
    };
    let refused = run(&mut as_nobody(&line("session=none")));
    let said = &refused.stderr;
    assert!(
        !refused.status.success() && said.contains("EACCES"),
        "{said}"
    );
    assert!(said.contains("session=libseat"), "{said}");
    // Without the property, seatd is asked because the user may not open the card.
    let player = Running::start(&mut as_nobody(&line("")));
    wait_for("loan", || seatd.has_open(CARD));
    assert_on_screen(&picture);
    switch_vt(another_terminal());
    assert_card_is_free();
    assert_crc(console);
    switch_vt(&home);
    assert_on_screen(&picture);
    // A process that is killed gives nothing back by itself.
    drop(player);
    wait_for("end of the loan", || !seatd.has_open(CARD));
    assert_crc(console);
}

#[test]
fn without_a_session_manager_the_error_says_so() {
    init();
    let _ = fs::remove_file(SOCKET);
    let line = gst_launch("rawvideosrc ! kmsflipsink session=libseat");
    let refused = run(&mut as_nobody(&line));
    let said = &refused.stderr;
    assert!(!refused.status.success(), "{said}");
    assert!(said.contains("neither seatd nor logind"), "{said}");
}
