// SPDX-License-Identifier: MPL-2.0
//! Overlay compositions where there is no plane to show them.

use super::{H, W};
use crate::frames::{
    assert_on_screen, bgrx_bytes, blended_by_gstreamer, composed, dma_frame, numbered,
    opaque_rectangle, overlay_rectangle, with_overlay,
};
use crate::support::player::Player;

#[test]
fn an_overlay_composition_is_blended_once_into_a_copy_of_the_frame() {
    let player = Player::playing("");
    let ground = numbered(W, H, 1);
    let half = [30, 60, 90, 128].repeat(80 * 40);
    let composition = composed([
        opaque_rectangle(&numbered(64, 32, 2), (600, 460)),
        overlay_rectangle(half, (80, 40), (20, 30)),
    ]);
    let frame = with_overlay(dma_frame(&ground), &composition);
    let expected = blended_by_gstreamer(&ground, &composition);
    // The same frame again: nothing was blended into the frame itself.
    for _ in 0..3 {
        player.show(frame.clone());
        assert_on_screen(&expected);
    }
    let bytes = frame.map_readable().unwrap();
    assert!(bytes[..W * H * 4] == bgrx_bytes(&ground, W * 4));
    drop(bytes);
    let counts = ["copied", "zero-copy", "overlay-blended", "overlay-on-plane"];
    let counts = counts.map(|name| player.count(name));
    assert_eq!(counts, [3, 0, 3, 0], "{}", player.stats());
    let path = player.text("path");
    let why = "an overlay is blended into the frame; no overlay plane with alpha is free";
    assert!(path.contains(why), "{path}");
    // Without a composition, the frame is not copied.
    let ground = numbered(W, H, 3);
    player.show(dma_frame(&ground));
    assert_on_screen(&ground);
    assert_eq!(player.count("zero-copy"), 1, "{}", player.stats());
}

#[test]
fn an_overlay_composition_beyond_the_frame_costs_no_copy() {
    let player = Player::playing("");
    let top = opaque_rectangle(&numbered(64, 32, 2), (W as i32, 0));
    let ground = numbered(W, H, 4);
    let composition = composed([top]);
    player.show(with_overlay(dma_frame(&ground), &composition));
    assert_on_screen(&ground);
    player.assert_zero_copy(1);
}
