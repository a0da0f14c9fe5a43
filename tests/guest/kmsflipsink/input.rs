// SPDX-License-Identifier: MPL-2.0
//! Input devices that the test makes (uinput), whose events the sink sends upstream as navigation events.

#[cfg(feature = "libseat")]
use std::cell::RefCell;
use std::sync::mpsc::{self, Receiver};
use std::time::Duration;

use evdev::uinput::VirtualDevice;
use evdev::{
    AbsInfo, AbsoluteAxisCode, AttributeSet, EventType, InputEvent, KeyCode, PropType,
    RelativeAxisCode, UinputAbsSetup,
};
use gst::prelude::*;
use gst_video::NavigationEvent;
use gst_video::prelude::*;

use crate::frames::{bgrx, buffer_of, numbered};
use crate::support::kernel_log::KernelLog;
use crate::support::player::{LIMIT, Player, init};
use crate::support::switch_vt;

/// A picture of this size is in the middle of the screen of 640x480, from 160,120 on.
const W: usize = 320;
const H: usize = 240;

/// A device that the test makes, and its node.
struct Made {
    device: VirtualDevice,
    node: String,
}

impl Made {
    fn new(mut device: VirtualDevice) -> Self {
        let mut nodes = device.enumerate_dev_nodes_blocking().unwrap();
        let node = nodes.next().unwrap().unwrap();
        let node = node.into_os_string().into_string().unwrap();
        Self { device, node }
    }

    fn emit(&mut self, events: &[(EventType, u16, i32)]) {
        let events = events
            .iter()
            .map(|&(kind, code, value)| InputEvent::new(kind.0, code, value));
        self.device.emit(&events.collect::<Vec<_>>()).unwrap();
    }
}

fn keyboard_with_mouse() -> Made {
    let keys = [
        KeyCode::KEY_LEFT,
        KeyCode::KEY_A,
        KeyCode::BTN_LEFT,
        KeyCode::BTN_RIGHT,
    ];
    let axes = [
        RelativeAxisCode::REL_X,
        RelativeAxisCode::REL_Y,
        RelativeAxisCode::REL_WHEEL,
    ];
    let builder = VirtualDevice::builder().unwrap().name("keys and mouse");
    let builder = builder.with_keys(&AttributeSet::from_iter(keys)).unwrap();
    let builder = builder.with_relative_axes(&AttributeSet::from_iter(axes));
    Made::new(builder.unwrap().build().unwrap())
}

/// A touchscreen of 0 to 1000 in both directions, which tells two fingers apart.
fn touchscreen() -> Made {
    let builder = VirtualDevice::builder().unwrap().name("touchscreen");
    let keys = AttributeSet::from_iter([KeyCode::BTN_TOUCH]);
    let mut builder = builder.with_keys(&keys).unwrap();
    for (axis, max) in [
        (AbsoluteAxisCode::ABS_MT_SLOT, 1),
        (AbsoluteAxisCode::ABS_MT_TRACKING_ID, 65535),
        (AbsoluteAxisCode::ABS_MT_POSITION_X, 1000),
        (AbsoluteAxisCode::ABS_MT_POSITION_Y, 1000),
    ] {
        let range = AbsInfo::new(0, 0, max, 0, 0, 0);
        builder = builder
            .with_absolute_axis(&UinputAbsSetup::new(axis, range))
            .unwrap();
    }
    let direct = AttributeSet::from_iter([PropType::DIRECT]);
    Made::new(builder.with_properties(&direct).unwrap().build().unwrap())
}

/// A player of the small picture, and the navigation events that reach its source.
fn playing(sink: &str) -> (Player, Receiver<NavigationEvent>) {
    let player = Player::with_appsrc(&format!("mode=640x480 {sink}"));
    let (tell, told) = mpsc::channel();
    let pad = player.appsrc().static_pad("src").unwrap();
    pad.add_probe(gst::PadProbeType::EVENT_UPSTREAM, move |_, info| {
        let event = info
            .event()
            .filter(|event| event.type_() == gst::EventType::Navigation);
        if let Some(event) = event {
            let _ = tell.send(NavigationEvent::parse(event).unwrap());
        }
        gst::PadProbeReturn::Ok
    });
    player.set_caps(&bgrx(W as u32, H as u32));
    player.start();
    player.show(buffer_of(&numbered(W, H, 1)));
    (player, told)
}

#[track_caller]
fn assert_told(told: &Receiver<NavigationEvent>, expected: &[NavigationEvent]) {
    for expected in expected {
        let event = told.recv_timeout(LIMIT);
        assert_eq!(event.as_ref(), Ok(expected));
    }
}

#[test]
fn keys_and_the_mouse_are_told_upstream_where_the_frame_is() {
    init();
    let _log = KernelLog::watch();
    let mut made = keyboard_with_mouse();
    let (player, told) = playing(&format!("input-devices={}", made.node));
    for value in [1, 0] {
        made.emit(&[(EventType::KEY, KeyCode::KEY_LEFT.0, value)]);
    }
    let keys = [
        NavigationEvent::new_key_press("Left"),
        NavigationEvent::new_key_release("Left"),
    ];
    assert_told(&told, &keys);
    // The pointer is in the middle of the screen, which is that of the frame.
    made.emit(&[
        (EventType::RELATIVE, RelativeAxisCode::REL_X.0, -60),
        (EventType::RELATIVE, RelativeAxisCode::REL_Y.0, 20),
        (EventType::KEY, KeyCode::BTN_RIGHT.0, 1),
    ]);
    let (x, y) = (100.0, 140.0);
    let pressed = [
        NavigationEvent::new_mouse_move(x, y),
        NavigationEvent::new_mouse_button_press(3, x, y),
    ];
    assert_told(&told, &pressed);
    // With the picture in another place, the pointer is elsewhere in it.
    let corner = gst::Array::new([0, 0, 320, 240]);
    player.sink.set_property("render-rectangle", corner);
    player.show(buffer_of(&numbered(W, H, 2)));
    made.emit(&[(EventType::RELATIVE, RelativeAxisCode::REL_X.0, -60)]);
    assert_told(&told, &[NavigationEvent::new_mouse_move(200.0, 240.0)]);
    made.emit(&[(EventType::RELATIVE, RelativeAxisCode::REL_WHEEL.0, 1)]);
    let scrolled = NavigationEvent::new_mouse_scroll(200.0, 240.0, 0.0, 1.0);
    assert_told(&told, &[scrolled]);
    assert_eq!(player.errors(), [""; 0]);
}

#[test]
fn fingers_are_told_upstream_where_the_frame_is() {
    init();
    let _log = KernelLog::watch();
    let mut made = touchscreen();
    let (player, told) = playing(&format!("input-devices={}", made.node));
    use AbsoluteAxisCode as Abs;
    let at = |axis: Abs, value| (EventType::ABSOLUTE, axis.0, value);
    made.emit(&[
        at(Abs::ABS_MT_TRACKING_ID, 5),
        at(Abs::ABS_MT_POSITION_X, 500),
        at(Abs::ABS_MT_POSITION_Y, 250),
    ]);
    let frame = NavigationEvent::new_touch_frame();
    let down = NavigationEvent::new_touch_down(5, 160.0, 0.0, 0.0);
    assert_told(&told, &[down, frame.clone()]);
    made.emit(&[at(Abs::ABS_MT_POSITION_Y, 500)]);
    let moved = NavigationEvent::new_touch_motion(5, 160.0, 120.0, 0.0);
    assert_told(&told, &[moved, frame.clone()]);
    made.emit(&[at(Abs::ABS_MT_TRACKING_ID, -1)]);
    let up = NavigationEvent::new_touch_up(5, 160.0, 120.0);
    assert_told(&told, &[up, frame]);
    assert_eq!(player.errors(), [""; 0]);
}

#[test]
fn what_is_typed_at_another_virtual_terminal_is_not_told() {
    init();
    let _log = KernelLog::watch();
    let mut made = keyboard_with_mouse();
    let (player, told) = playing("input-devices=auto");
    let home = crate::support::foreground_vt();
    let mut type_key = |key: KeyCode| {
        made.emit(&[(EventType::KEY, key.0, 1)]);
        made.emit(&[(EventType::KEY, key.0, 0)]);
    };
    type_key(KeyCode::KEY_LEFT);
    let left = [
        NavigationEvent::new_key_press("Left"),
        NavigationEvent::new_key_release("Left"),
    ];
    assert_told(&told, &left);
    switch_vt(if home == "tty2" { "tty3" } else { "tty2" });
    player.wait_for_event("master-lost");
    type_key(KeyCode::KEY_A);
    let told_meanwhile = told.recv_timeout(Duration::from_secs(2));
    assert_eq!(told_meanwhile, Err(mpsc::RecvTimeoutError::Timeout));
    switch_vt(&home);
    player.wait_for_event("master-regained");
    type_key(KeyCode::KEY_LEFT);
    assert_told(&told, &left);
    assert_eq!(player.errors(), [""; 0]);
}

/// seatd takes the device away while another session is shown. Its file is dead then, and the sink opens it again.
#[cfg(feature = "libseat")]
#[test]
fn a_session_manager_lends_devices_too() {
    let seatd = crate::seat::seatd();
    let _log = KernelLog::watch();
    let made = keyboard_with_mouse();
    let node = made.node.clone();
    let made = RefCell::new(made);
    let (player, told) = playing(&format!("session=libseat input-devices={node}"));
    assert!(seatd.has_open(&node), "seatd has opened the device");
    let home = crate::support::foreground_vt();
    let press = || {
        for value in [1, 0] {
            made.borrow_mut()
                .emit(&[(EventType::KEY, KeyCode::KEY_LEFT.0, value)]);
        }
    };
    let pressed = NavigationEvent::new_key_press("Left");
    press();
    assert_told(
        &told,
        &[pressed.clone(), NavigationEvent::new_key_release("Left")],
    );
    switch_vt(if home == "tty2" { "tty3" } else { "tty2" });
    player.wait_for_event("master-lost");
    press();
    switch_vt(&home);
    player.wait_for_event("master-regained");
    // The device is looked for once a second.
    player.wait_until("key after the switch back", |_| {
        press();
        told.try_iter().any(|event| event == pressed)
    });
    assert_eq!(player.errors(), [""; 0]);
}

#[test]
fn an_application_sends_points_of_the_screen_too() {
    let (player, told) = playing("");
    let navigation = player.sink.dynamic_cast_ref::<gst_video::Navigation>();
    let moved = NavigationEvent::new_mouse_move(170.0, 125.0);
    navigation.unwrap().send_event(moved.structure());
    assert_told(&told, &[NavigationEvent::new_mouse_move(10.0, 5.0)]);
}

#[test]
fn a_device_that_is_not_there_is_an_error_with_its_name() {
    let player = Player::with_appsrc("input-devices=/dev/input/event99");
    player.refuses_to_start();
    let error = player.wait_for_error();
    assert!(error.contains("/dev/input/event99"), "{error}");
    assert!(error.contains("ENOENT"), "{error}");
}
