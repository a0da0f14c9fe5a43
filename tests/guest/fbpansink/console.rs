// SPDX-License-Identifier: MPL-2.0
//! The text console on the same framebuffer (any display that has one).

use super::fb::{KD_GRAPHICS, KD_TEXT, console_mode};
use super::player::Player;
use super::support::require_lab;

#[test]
fn the_console_keeps_quiet_while_frames_are_shown() {
    require_lab();
    assert_eq!(console_mode(), KD_TEXT);
    let player = Player::play("rawvideosrc num-buffers=3 ! fbpansink name=s");
    assert_eq!(console_mode(), KD_GRAPHICS);
    assert!(player.stats().get::<bool>("console-quiet").unwrap());
    player.stop();
    assert_eq!(console_mode(), KD_TEXT);

    // After an error too.
    let player = Player::new("videotestsrc ! fbpansink name=s render-rectangle=\"<-9, 0, 5, 5>\"");
    player.refuses_to_start();
    assert_eq!(console_mode(), KD_TEXT);
}
