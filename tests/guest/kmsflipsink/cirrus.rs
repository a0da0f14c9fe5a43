// SPDX-License-Identifier: MPL-2.0
//! cirrus, which imports dma-bufs and honours their offset and stride.

use crate::frames::{bgrx, dma_frame_at, numbered};
use crate::support::player::Player;
use crate::unpaced::{as_cirrus_shows, assert_seen};

#[test]
fn a_dma_buf_with_offset_and_stride_is_shown_where_it_is() {
    let player = Player::with_appsrc("mode=640x480");
    player.set_caps(&bgrx(640, 480));
    player.set_state(gst::State::Playing);
    for (number, offset, stride) in [
        (77, 4096, 640 * 4 + 256),
        (78, 64, 640 * 4),
        (79, 0, 640 * 4 + 64),
    ] {
        let picture = numbered(640, 480, number);
        player.show(dma_frame_at(&picture, offset, stride));
        assert_seen(&as_cirrus_shows(&picture));
    }
    assert_eq!(
        (player.count("zero-copy"), player.count("copied")),
        (3, 0),
        "{}",
        player.stats()
    );
}
