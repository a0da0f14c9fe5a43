// SPDX-License-Identifier: MPL-2.0
//! A display that stays connected while its EDID changes, as behind a KVM switch: virtio-gpu, whose EDID follows the
//! size of QEMU's window.

use gst::prelude::*;

use crate::frames::{bgrx, buffer_of, centred, numbered};
use crate::support::oracle;
use crate::support::player::Player;
use crate::unpaced::assert_seen;

#[test]
fn a_display_that_prefers_another_mode_gets_it_while_playing() {
    let player = Player::with_appsrc("mode=preferred");
    player.set_caps(&bgrx(320, 240));
    player.start();
    let mut picture = numbered(320, 240, 0);
    player.show(buffer_of(&picture));
    let size = || {
        let of = |name| player.sink.property::<i32>(name);
        (of("display-width"), of("display-height"))
    };
    let first = size();
    for (round, (width, height)) in [(800, 600), (1024, 768), (640, 480)]
        .into_iter()
        .enumerate()
    {
        assert_ne!(size(), (width, height), "it is not the mode yet");
        oracle().resize_desktop(width as usize, height as usize);
        player.wait_for_event("plugged");
        picture = numbered(320, 240, round + 1);
        player.show(buffer_of(&picture));
        player.wait_until("mode of the new EDID", |_| size() == (width, height));
        assert_seen(&centred(&picture, width as usize, height as usize));
    }
    assert_ne!(size(), first);
    assert_eq!(
        player.count("dropped-disconnected"),
        0,
        "{}",
        player.stats()
    );
    assert_eq!(player.errors(), [""; 0]);
}

#[test]
fn a_mode_that_the_user_named_stays_if_the_display_still_has_it() {
    let player = Player::playing("");
    player.show(buffer_of(&numbered(640, 480, 1)));
    oracle().resize_desktop(1280, 720);
    player.wait_for_event("plugged");
    let picture = numbered(640, 480, 2);
    player.show(buffer_of(&picture));
    assert_seen(&picture);
    assert_eq!(player.text("mode").split('@').next(), Some("640x480"));
    assert_eq!(player.errors(), [""; 0]);
}
