// SPDX-License-Identifier: MPL-2.0
//! A machine without a framebuffer.

use gst::prelude::*;

use super::support::player::{Player, init};
use super::support::require_lab;

#[test]
fn no_framebuffer_is_listed() {
    init();
    let provider = gst::DeviceProviderFactory::by_name("fbpandeviceprovider").unwrap();
    assert!(provider.devices().is_empty());
    provider.start().unwrap();
    assert!(provider.devices().is_empty());
    provider.stop();
}

#[test]
fn no_framebuffer_is_one_clear_error() {
    require_lab();
    let player = Player::new("videotestsrc ! fbpansink name=sink");
    player.refuses_to_start();
    let errors = player.errors();
    assert_eq!(errors.len(), 1, "{errors:?}");
    assert!(errors[0].contains("there is no /dev/fb0"), "{errors:?}");
    assert!(
        errors[0].contains("set the property `device`"),
        "{errors:?}"
    );
}
