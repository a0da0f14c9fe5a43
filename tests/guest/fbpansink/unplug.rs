// SPDX-License-Identifier: MPL-2.0
//! cirrus, whose driver is unbound while frames are shown. Afterwards nothing else can be tested in
//! this guest.

use super::support::player::Player;
use super::support::require_lab;

#[test]
fn a_driver_that_goes_away_is_one_error_and_no_hang() {
    require_lab();
    let player = Player::new("rawvideosrc ! fbpansink name=sink");
    player.start();
    player.wait_shown(3);
    let driver = "/sys/bus/pci/drivers/cirrusfb";
    let device = std::fs::read_dir(driver)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .find(|name| name.starts_with("0000:"))
        .expect("a card");
    std::fs::write(format!("{driver}/unbind"), device).unwrap();
    let error = player.wait_for_error();
    let says =
        "FBIOPAN_DISPLAY on /dev/fb0 failed: No such device (ENODEV); the display was unplugged";
    assert!(error.contains(says), "{error}");
    player.stop();
    Player::new("rawvideosrc ! fbpansink name=sink").refuses_to_start();
}
