// SPDX-License-Identifier: MPL-2.0
//! vkms with drm_fbdev_overalloc=100, so that the framebuffer has memory for one screenful.

use gst_video::VideoFormat;

use super::pictures;
use super::support::player::Player;
use super::support::{VkmsCrc, require_lab};

#[test]
fn memory_for_one_page_is_drawn_on_directly_and_the_remedy_said() {
    require_lab();
    let player = Player::play("rawvideosrc num-buffers=4 ! queue ! fbpansink name=sink");
    player.assert_zero_copy(4);
    let stats = player.stats();
    assert_eq!(stats.get::<u32>("fb-pages").unwrap(), 1, "{stats}");
    let warnings = player.messages(gst::MessageType::Warning);
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(
        warnings[0].contains("drm_kms_helper.drm_fbdev_overalloc=300"),
        "{warnings:?}"
    );
    let (width, height) = (stats.get("width").unwrap(), stats.get("height").unwrap());
    let expected = pictures::pattern(3, VideoFormat::Bgrx, width, height);
    assert_eq!(VkmsCrc::current(), expected.vkms_crc());
}
