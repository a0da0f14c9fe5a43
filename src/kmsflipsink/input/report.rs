// SPDX-License-Identifier: MPL-2.0
//! Makes navigation events of what an input device reports. Their points are in pixels of the screen. Pure.

use evdev::{
    AbsoluteAxisCode, EventSummary, InputEvent, KeyCode, RelativeAxisCode, SynchronizationCode,
};
use gst_video::NavigationEvent;

use super::keys;

/// Where the pointer is. The mice of a sink have one together.
#[derive(Debug, Default)]
pub struct Pointer {
    /// The place as a share of the screen, because the mode may change.
    x: f64,
    y: f64,
}

/// The smallest and the largest value of an axis.
#[derive(Debug, Clone, Copy, Default)]
pub struct Range {
    pub min: i32,
    pub max: i32,
}

impl Range {
    fn share(self, value: i32) -> f64 {
        let len = f64::from(self.max) - f64::from(self.min);
        ((f64::from(value) - f64::from(self.min)) / len.max(1.0)).clamp(0.0, 1.0)
    }
}

/// What a device can do, as far as it matters here.
#[derive(Debug, Clone, Copy, Default)]
pub struct Abilities {
    /// The axes of an absolute position; `None` for a device without, and for a touchpad, which is no part of the screen.
    pub position: Option<[Range; 2]>,
    pub pressure: Range,
    /// Whether the device tells several fingers apart (multi-touch protocol B).
    pub has_slots: bool,
    /// Whether the position is that of a finger, and not of a pointer.
    pub is_touch: bool,
}

/// A device whose reports become events.
#[derive(Debug)]
pub struct Reports {
    abilities: Abilities,
    /// What has come since the last report was complete.
    motion: (i32, i32),
    scroll: (i32, i32),
    at: [Option<i32>; 2],
    keys: Vec<(KeyCode, i32)>,
    slot: usize,
    fingers: Vec<Finger>,
}

#[derive(Debug, Clone, Default)]
struct Finger {
    /// The kernel's number; `None` while no finger is there.
    id: Option<u32>,
    /// The one that was told last.
    told: Option<u32>,
    x: f64,
    y: f64,
    pressure: f64,
    has_moved: bool,
}

impl Default for Reports {
    fn default() -> Self {
        Self::new(Abilities::default())
    }
}

impl Reports {
    pub fn new(abilities: Abilities) -> Self {
        Self {
            abilities,
            motion: (0, 0),
            scroll: (0, 0),
            at: [None; 2],
            keys: Vec::new(),
            slot: 0,
            fingers: Vec::new(),
        }
    }

    /// Takes in what the kernel reports. Returns the events of a report that is complete.
    pub fn take(
        &mut self,
        event: InputEvent,
        pointer: &mut Pointer,
        screen: (u32, u32),
    ) -> Vec<NavigationEvent> {
        match event.destructure() {
            EventSummary::Key(_, KeyCode::BTN_TOUCH, value) if self.is_single_touch() => {
                self.finger().id = (value != 0).then_some(0);
            }
            EventSummary::Key(_, key, value) => self.keys.push((key, value)),
            EventSummary::RelativeAxis(_, axis, value) => match axis {
                RelativeAxisCode::REL_X => self.motion.0 += value,
                RelativeAxisCode::REL_Y => self.motion.1 += value,
                RelativeAxisCode::REL_HWHEEL => self.scroll.0 += value,
                RelativeAxisCode::REL_WHEEL => self.scroll.1 += value,
                _ => {}
            },
            EventSummary::AbsoluteAxis(_, axis, value) => self.take_position(axis, value),
            EventSummary::Synchronization(_, SynchronizationCode::SYN_REPORT, _) => {
                return self.complete(pointer, screen);
            }
            _ => {}
        }
        Vec::new()
    }

    fn is_single_touch(&self) -> bool {
        self.abilities.is_touch && !self.abilities.has_slots
    }

    fn take_position(&mut self, axis: AbsoluteAxisCode, value: i32) {
        let Some([of_x, of_y]) = self.abilities.position else {
            return;
        };
        let of_pressure = self.abilities.pressure;
        if self.abilities.has_slots {
            match axis {
                AbsoluteAxisCode::ABS_MT_SLOT => self.slot = usize::try_from(value).unwrap_or(0),
                AbsoluteAxisCode::ABS_MT_TRACKING_ID => {
                    self.finger().id = u32::try_from(value).ok()
                }
                AbsoluteAxisCode::ABS_MT_POSITION_X => {
                    self.finger().go_to(Some(of_x.share(value)), None)
                }
                AbsoluteAxisCode::ABS_MT_POSITION_Y => {
                    self.finger().go_to(None, Some(of_y.share(value)))
                }
                AbsoluteAxisCode::ABS_MT_PRESSURE => {
                    self.finger().pressure = of_pressure.share(value);
                }
                _ => {}
            }
        } else if self.abilities.is_touch {
            match axis {
                AbsoluteAxisCode::ABS_X => self.finger().go_to(Some(of_x.share(value)), None),
                AbsoluteAxisCode::ABS_Y => self.finger().go_to(None, Some(of_y.share(value))),
                AbsoluteAxisCode::ABS_PRESSURE => self.finger().pressure = of_pressure.share(value),
                _ => {}
            }
        } else {
            match axis {
                AbsoluteAxisCode::ABS_X => self.at[0] = Some(value),
                AbsoluteAxisCode::ABS_Y => self.at[1] = Some(value),
                _ => {}
            }
        }
    }

    /// The finger of the slot that the kernel reports about.
    fn finger(&mut self) -> &mut Finger {
        // No device has more; a number beyond would be a mistake of its driver.
        const MAX_SLOTS: usize = 64;
        let slot = self.slot.min(MAX_SLOTS - 1);
        if self.fingers.len() <= slot {
            self.fingers.resize_with(slot + 1, Finger::default);
        }
        &mut self.fingers[slot]
    }

    fn complete(&mut self, pointer: &mut Pointer, screen: (u32, u32)) -> Vec<NavigationEvent> {
        let mut events = Vec::new();
        let motion = std::mem::take(&mut self.motion);
        let at = std::mem::take(&mut self.at);
        let has_moved = motion != (0, 0) || at != [None; 2];
        pointer.step(motion, screen);
        if let Some(ranges) = self.abilities.position {
            let share = |axis: usize| at[axis].map(|value| ranges[axis].share(value));
            pointer.x = share(0).unwrap_or(pointer.x);
            pointer.y = share(1).unwrap_or(pointer.y);
        }
        let (x, y) = on_screen((pointer.x, pointer.y), screen);
        if has_moved {
            events.push(NavigationEvent::new_mouse_move(x, y));
        }
        let scroll = std::mem::take(&mut self.scroll);
        if scroll != (0, 0) {
            let (delta_x, delta_y) = (f64::from(scroll.0), f64::from(scroll.1));
            events.push(NavigationEvent::new_mouse_scroll(x, y, delta_x, delta_y));
        }
        for (key, value) in self.keys.drain(..) {
            // 2 is what a key that is held down repeats.
            let is_down = value != 0;
            let of_button = keys::button(key).filter(|_| value != 2);
            match (of_button, keys::name(key), is_down) {
                (Some(n), _, true) => events.push(NavigationEvent::new_mouse_button_press(n, x, y)),
                (Some(n), _, false) => {
                    events.push(NavigationEvent::new_mouse_button_release(n, x, y));
                }
                (None, Some(name), true) => events.push(NavigationEvent::new_key_press(name)),
                (None, Some(name), false) => events.push(NavigationEvent::new_key_release(name)),
                (None, None, _) => {}
            }
        }
        let n_events = events.len();
        for finger in &mut self.fingers {
            finger.tell(screen, &mut events);
        }
        if events.len() > n_events {
            events.push(NavigationEvent::new_touch_frame());
        }
        events
    }
}

impl Pointer {
    /// A pointer in the middle of the screen.
    pub fn centred() -> Self {
        Self { x: 0.5, y: 0.5 }
    }

    fn step(&mut self, (x, y): (i32, i32), screen: (u32, u32)) {
        let share = |step: i32, len: u32| f64::from(step) / f64::from(len.max(1));
        self.x = (self.x + share(x, screen.0)).clamp(0.0, 1.0);
        self.y = (self.y + share(y, screen.1)).clamp(0.0, 1.0);
    }
}

fn on_screen((x, y): (f64, f64), screen: (u32, u32)) -> (f64, f64) {
    (x * f64::from(screen.0), y * f64::from(screen.1))
}

impl Finger {
    fn go_to(&mut self, x: Option<f64>, y: Option<f64>) {
        self.x = x.unwrap_or(self.x);
        self.y = y.unwrap_or(self.y);
        self.has_moved = true;
    }

    fn tell(&mut self, screen: (u32, u32), events: &mut Vec<NavigationEvent>) {
        let (x, y) = on_screen((self.x, self.y), screen);
        let has_moved = std::mem::take(&mut self.has_moved);
        if let Some(told) = self.told.filter(|_| self.told != self.id) {
            events.push(NavigationEvent::new_touch_up(told, x, y));
        }
        match self.id {
            Some(id) if self.told != Some(id) => {
                events.push(NavigationEvent::new_touch_down(id, x, y, self.pressure));
            }
            Some(id) if has_moved => {
                events.push(NavigationEvent::new_touch_motion(id, x, y, self.pressure));
            }
            _ => {}
        }
        self.told = self.id;
    }
}

#[cfg(test)]
mod tests {
    use evdev::EventType;

    use super::*;

    const SCREEN: (u32, u32) = (640, 480);
    const RANGES: [Range; 2] = [Range { min: 0, max: 1000 }, Range { min: -50, max: 50 }];

    fn key(key: KeyCode, value: i32) -> InputEvent {
        InputEvent::new(EventType::KEY.0, key.0, value)
    }

    fn relative(axis: RelativeAxisCode, value: i32) -> InputEvent {
        InputEvent::new(EventType::RELATIVE.0, axis.0, value)
    }

    fn absolute(axis: AbsoluteAxisCode, value: i32) -> InputEvent {
        InputEvent::new(EventType::ABSOLUTE.0, axis.0, value)
    }

    /// The events of one complete report.
    fn told(
        reports: &mut Reports,
        pointer: &mut Pointer,
        of: &[InputEvent],
    ) -> Vec<NavigationEvent> {
        for &event in of {
            assert!(
                reports.take(event, pointer, SCREEN).is_empty(),
                "not complete"
            );
        }
        let end = SynchronizationCode::SYN_REPORT.0;
        let end = InputEvent::new(EventType::SYNCHRONIZATION.0, end, 0);
        reports.take(end, pointer, SCREEN)
    }

    #[test]
    fn a_mouse_moves_the_pointer_before_it_clicks_and_stays_on_the_screen() {
        gst::init().unwrap();
        let (mut reports, mut pointer) = (Reports::default(), Pointer::centred());
        let of = [
            key(KeyCode::BTN_LEFT, 1),
            relative(RelativeAxisCode::REL_X, 10),
            relative(RelativeAxisCode::REL_Y, -40),
        ];
        let moved = told(&mut reports, &mut pointer, &of);
        assert_eq!(
            moved,
            [
                NavigationEvent::new_mouse_move(330.0, 200.0),
                NavigationEvent::new_mouse_button_press(1, 330.0, 200.0)
            ]
        );
        let of = [relative(RelativeAxisCode::REL_X, -5000)];
        let moved = told(&mut reports, &mut pointer, &of);
        assert_eq!(moved, [NavigationEvent::new_mouse_move(0.0, 200.0)]);
        let of = [
            relative(RelativeAxisCode::REL_WHEEL, -1),
            key(KeyCode::BTN_LEFT, 0),
        ];
        let scrolled = told(&mut reports, &mut pointer, &of);
        assert_eq!(
            scrolled,
            [
                NavigationEvent::new_mouse_scroll(0.0, 200.0, 0.0, -1.0),
                NavigationEvent::new_mouse_button_release(1, 0.0, 200.0)
            ]
        );
        assert!(told(&mut reports, &mut pointer, &[]).is_empty());
    }

    #[test]
    fn a_key_that_is_held_down_is_pressed_again() {
        gst::init().unwrap();
        let (mut reports, mut pointer) = (Reports::default(), Pointer::centred());
        for (value, event) in [
            (1, NavigationEvent::new_key_press("Left")),
            (2, NavigationEvent::new_key_press("Left")),
            (0, NavigationEvent::new_key_release("Left")),
        ] {
            let of = [key(KeyCode::KEY_LEFT, value)];
            assert_eq!(told(&mut reports, &mut pointer, &of), [event]);
        }
    }

    #[test]
    fn a_tablet_says_where_the_pointer_is() {
        gst::init().unwrap();
        let (mut pointer, abilities) = (
            Pointer::centred(),
            Abilities {
                position: Some(RANGES),
                ..Abilities::default()
            },
        );
        let mut reports = Reports::new(abilities);
        let of = [absolute(AbsoluteAxisCode::ABS_X, 250)];
        let moved = told(&mut reports, &mut pointer, &of);
        assert_eq!(moved, [NavigationEvent::new_mouse_move(160.0, 240.0)]);
        let of = [absolute(AbsoluteAxisCode::ABS_Y, -50)];
        let moved = told(&mut reports, &mut pointer, &of);
        assert_eq!(moved, [NavigationEvent::new_mouse_move(160.0, 0.0)]);
    }

    #[test]
    fn fingers_are_told_apart_and_each_report_is_a_frame() {
        gst::init().unwrap();
        let mut pointer = Pointer::centred();
        let mut reports = Reports::new(Abilities {
            position: Some(RANGES),
            pressure: Range { min: 0, max: 4 },
            has_slots: true,
            is_touch: true,
        });
        use AbsoluteAxisCode as Abs;
        let down = [
            absolute(Abs::ABS_MT_SLOT, 0),
            absolute(Abs::ABS_MT_TRACKING_ID, 7),
            absolute(Abs::ABS_MT_POSITION_X, 500),
            absolute(Abs::ABS_MT_POSITION_Y, 0),
            absolute(Abs::ABS_MT_PRESSURE, 2),
            absolute(Abs::ABS_MT_SLOT, 1),
            absolute(Abs::ABS_MT_TRACKING_ID, 8),
            absolute(Abs::ABS_MT_POSITION_X, 0),
            absolute(Abs::ABS_MT_POSITION_Y, 50),
            // What the kernel reports for programs that know of one finger.
            key(KeyCode::BTN_TOUCH, 1),
            absolute(Abs::ABS_X, 500),
        ];
        assert_eq!(
            told(&mut reports, &mut pointer, &down),
            [
                NavigationEvent::new_touch_down(7, 320.0, 240.0, 0.5),
                NavigationEvent::new_touch_down(8, 0.0, 480.0, 0.0),
                NavigationEvent::new_touch_frame()
            ]
        );
        let moved = [
            absolute(Abs::ABS_MT_POSITION_X, 250),
            absolute(Abs::ABS_MT_SLOT, 0),
            absolute(Abs::ABS_MT_TRACKING_ID, -1),
        ];
        assert_eq!(
            told(&mut reports, &mut pointer, &moved),
            [
                NavigationEvent::new_touch_up(7, 320.0, 240.0),
                NavigationEvent::new_touch_motion(8, 160.0, 480.0, 0.0),
                NavigationEvent::new_touch_frame()
            ]
        );
    }

    #[test]
    fn a_screen_that_knows_one_finger_touches_too() {
        gst::init().unwrap();
        let mut pointer = Pointer::centred();
        let mut reports = Reports::new(Abilities {
            position: Some(RANGES),
            is_touch: true,
            ..Abilities::default()
        });
        let down = [
            absolute(AbsoluteAxisCode::ABS_X, 250),
            absolute(AbsoluteAxisCode::ABS_Y, 0),
            key(KeyCode::BTN_TOUCH, 1),
        ];
        let frame = NavigationEvent::new_touch_frame();
        assert_eq!(
            told(&mut reports, &mut pointer, &down),
            [
                NavigationEvent::new_touch_down(0, 160.0, 240.0, 0.0),
                frame.clone()
            ]
        );
        let up = [key(KeyCode::BTN_TOUCH, 0)];
        assert_eq!(
            told(&mut reports, &mut pointer, &up),
            [NavigationEvent::new_touch_up(0, 160.0, 240.0), frame]
        );
    }
}
