// SPDX-License-Identifier: MPL-2.0
//! The names of keys and the numbers of buttons in navigation events: those of X, as all sinks of GStreamer have them.
//! Shift changes no name, as in xvimagesink. What is on a key is that of an American keyboard, because evdev tells only
//! where a key is.

use evdev::KeyCode;

/// The name of a key; `None` if it is a button, or has none here.
pub fn name(key: KeyCode) -> Option<&'static str> {
    let names = NAMES.iter();
    names
        .copied()
        .find(|(code, _)| *code == key)
        .map(|(_, name)| name)
}

/// The number of a mouse button.
pub fn button(key: KeyCode) -> Option<i32> {
    match key {
        KeyCode::BTN_LEFT => Some(1),
        KeyCode::BTN_MIDDLE => Some(2),
        KeyCode::BTN_RIGHT => Some(3),
        KeyCode::BTN_SIDE => Some(8),
        KeyCode::BTN_EXTRA => Some(9),
        _ => None,
    }
}

#[rustfmt::skip]
const NAMES: &[(KeyCode, &str)] = &[
    (KeyCode::KEY_A, "a"), (KeyCode::KEY_B, "b"), (KeyCode::KEY_C, "c"), (KeyCode::KEY_D, "d"),
    (KeyCode::KEY_E, "e"), (KeyCode::KEY_F, "f"), (KeyCode::KEY_G, "g"), (KeyCode::KEY_H, "h"),
    (KeyCode::KEY_I, "i"), (KeyCode::KEY_J, "j"), (KeyCode::KEY_K, "k"), (KeyCode::KEY_L, "l"),
    (KeyCode::KEY_M, "m"), (KeyCode::KEY_N, "n"), (KeyCode::KEY_O, "o"), (KeyCode::KEY_P, "p"),
    (KeyCode::KEY_Q, "q"), (KeyCode::KEY_R, "r"), (KeyCode::KEY_S, "s"), (KeyCode::KEY_T, "t"),
    (KeyCode::KEY_U, "u"), (KeyCode::KEY_V, "v"), (KeyCode::KEY_W, "w"), (KeyCode::KEY_X, "x"),
    (KeyCode::KEY_Y, "y"), (KeyCode::KEY_Z, "z"),
    (KeyCode::KEY_0, "0"), (KeyCode::KEY_1, "1"), (KeyCode::KEY_2, "2"), (KeyCode::KEY_3, "3"),
    (KeyCode::KEY_4, "4"), (KeyCode::KEY_5, "5"), (KeyCode::KEY_6, "6"), (KeyCode::KEY_7, "7"),
    (KeyCode::KEY_8, "8"), (KeyCode::KEY_9, "9"),
    (KeyCode::KEY_F1, "F1"), (KeyCode::KEY_F2, "F2"), (KeyCode::KEY_F3, "F3"), (KeyCode::KEY_F4, "F4"),
    (KeyCode::KEY_F5, "F5"), (KeyCode::KEY_F6, "F6"), (KeyCode::KEY_F7, "F7"), (KeyCode::KEY_F8, "F8"),
    (KeyCode::KEY_F9, "F9"), (KeyCode::KEY_F10, "F10"), (KeyCode::KEY_F11, "F11"), (KeyCode::KEY_F12, "F12"),
    (KeyCode::KEY_UP, "Up"), (KeyCode::KEY_DOWN, "Down"), (KeyCode::KEY_LEFT, "Left"), (KeyCode::KEY_RIGHT, "Right"),
    (KeyCode::KEY_HOME, "Home"), (KeyCode::KEY_END, "End"), (KeyCode::KEY_PAGEUP, "Prior"), (KeyCode::KEY_PAGEDOWN, "Next"),
    (KeyCode::KEY_INSERT, "Insert"), (KeyCode::KEY_DELETE, "Delete"),
    (KeyCode::KEY_ENTER, "Return"), (KeyCode::KEY_SPACE, "space"), (KeyCode::KEY_ESC, "Escape"),
    (KeyCode::KEY_BACKSPACE, "BackSpace"), (KeyCode::KEY_TAB, "Tab"), (KeyCode::KEY_MENU, "Menu"),
    (KeyCode::KEY_COMPOSE, "Menu"),
    (KeyCode::KEY_LEFTSHIFT, "Shift_L"), (KeyCode::KEY_RIGHTSHIFT, "Shift_R"),
    (KeyCode::KEY_LEFTCTRL, "Control_L"), (KeyCode::KEY_RIGHTCTRL, "Control_R"),
    (KeyCode::KEY_LEFTALT, "Alt_L"), (KeyCode::KEY_RIGHTALT, "Alt_R"),
    (KeyCode::KEY_LEFTMETA, "Super_L"), (KeyCode::KEY_RIGHTMETA, "Super_R"), (KeyCode::KEY_CAPSLOCK, "Caps_Lock"),
    (KeyCode::KEY_MINUS, "minus"), (KeyCode::KEY_EQUAL, "equal"), (KeyCode::KEY_LEFTBRACE, "bracketleft"),
    (KeyCode::KEY_RIGHTBRACE, "bracketright"), (KeyCode::KEY_SEMICOLON, "semicolon"),
    (KeyCode::KEY_APOSTROPHE, "apostrophe"), (KeyCode::KEY_GRAVE, "grave"), (KeyCode::KEY_BACKSLASH, "backslash"),
    (KeyCode::KEY_COMMA, "comma"), (KeyCode::KEY_DOT, "period"), (KeyCode::KEY_SLASH, "slash"),
    (KeyCode::KEY_KP0, "KP_0"), (KeyCode::KEY_KP1, "KP_1"), (KeyCode::KEY_KP2, "KP_2"), (KeyCode::KEY_KP3, "KP_3"),
    (KeyCode::KEY_KP4, "KP_4"), (KeyCode::KEY_KP5, "KP_5"), (KeyCode::KEY_KP6, "KP_6"), (KeyCode::KEY_KP7, "KP_7"),
    (KeyCode::KEY_KP8, "KP_8"), (KeyCode::KEY_KP9, "KP_9"), (KeyCode::KEY_KPENTER, "KP_Enter"),
    (KeyCode::KEY_KPPLUS, "KP_Add"), (KeyCode::KEY_KPMINUS, "KP_Subtract"),
    // Remote controls.
    (KeyCode::KEY_OK, "Return"), (KeyCode::KEY_SELECT, "Return"), (KeyCode::KEY_BACK, "XF86Back"),
    (KeyCode::KEY_PLAYPAUSE, "XF86AudioPlay"), (KeyCode::KEY_STOPCD, "XF86AudioStop"),
    (KeyCode::KEY_NEXTSONG, "XF86AudioNext"), (KeyCode::KEY_PREVIOUSSONG, "XF86AudioPrev"),
    (KeyCode::KEY_VOLUMEUP, "XF86AudioRaiseVolume"), (KeyCode::KEY_VOLUMEDOWN, "XF86AudioLowerVolume"),
    (KeyCode::KEY_MUTE, "XF86AudioMute"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_and_buttons_are_named_as_in_x() {
        assert_eq!(name(KeyCode::KEY_PAGEUP), Some("Prior"));
        assert_eq!(name(KeyCode::KEY_A), Some("a"));
        assert_eq!(name(KeyCode::BTN_LEFT), None);
        assert_eq!(
            [KeyCode::BTN_LEFT, KeyCode::BTN_MIDDLE, KeyCode::BTN_RIGHT].map(button),
            [Some(1), Some(2), Some(3)]
        );
        assert_eq!(button(KeyCode::KEY_A), None);
    }

    #[test]
    fn no_key_has_two_names() {
        for (at, (key, _)) in NAMES.iter().enumerate() {
            assert!(NAMES[..at].iter().all(|(other, _)| other != key), "{key:?}");
        }
    }
}
