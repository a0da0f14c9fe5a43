// SPDX-License-Identifier: MPL-2.0
//! Who uses the seat, and whether all have let go of it.

use std::sync::Arc;

use nix::sys::eventfd::EventFd;

/// The users of a seat.
#[derive(Debug, Default)]
pub(super) struct Users {
    place: Place,
    users: Vec<User>,
    newest: u64,
}

/// Who has the seat.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Place {
    #[default]
    Here,
    /// Another session is to be shown. The session manager waits until all users have let go.
    Asked,
    /// Another session is shown.
    Away,
    /// The session manager has ended.
    Gone,
}

#[derive(Debug)]
struct User {
    number: u64,
    /// Written when `place` changes.
    event: Arc<EventFd>,
    has_let_go: bool,
}

impl Users {
    /// Adds a user, which learns at once if another session is shown.
    pub(super) fn add(&mut self, event: Arc<EventFd>) -> u64 {
        self.newest += 1;
        let user = User {
            number: self.newest,
            event,
            has_let_go: false,
        };
        if self.place != Place::Here {
            user.tell();
        }
        self.users.push(user);
        self.newest
    }

    pub(super) fn remove(&mut self, number: u64) {
        self.users.retain(|user| user.number != number);
    }

    pub(super) fn let_go(&mut self, number: u64) {
        let mut users = self.users.iter_mut();
        if let Some(user) = users.find(|user| user.number == number) {
            user.has_let_go = true;
        }
    }

    pub(super) fn is_away(&self) -> bool {
        matches!(self.place, Place::Asked | Place::Away)
    }

    pub(super) fn is_gone(&self) -> bool {
        self.place == Place::Gone
    }
}

/// What the thread of the seat does.
#[cfg_attr(not(feature = "libseat"), allow(dead_code))]
impl Users {
    /// The session manager wants to show another session.
    pub(super) fn ask(&mut self) {
        self.go_to(Place::Asked);
    }

    /// The session is shown again.
    pub(super) fn come_back(&mut self) {
        for user in &mut self.users {
            user.has_let_go = false;
        }
        self.go_to(Place::Here);
    }

    /// The session manager has ended.
    pub(super) fn lose(&mut self) {
        self.go_to(Place::Gone);
    }

    /// Whether the session manager may show the other session now; true once for each request.
    pub(super) fn may_leave(&mut self) -> bool {
        let may = self.place == Place::Asked && self.have_let_go();
        if may {
            self.place = Place::Away;
        }
        may
    }

    pub(super) fn have_let_go(&self) -> bool {
        self.users.iter().all(|user| user.has_let_go)
    }

    fn go_to(&mut self, place: Place) {
        self.place = place;
        self.users.iter().for_each(User::tell);
    }
}

impl User {
    fn tell(&self) {
        // The write fails if the eventfd's counter is full, and then it is readable anyway.
        let _ = self.event.write(1);
    }
}

#[cfg(test)]
mod tests {
    use nix::sys::eventfd::EfdFlags;

    use super::*;

    fn event() -> Arc<EventFd> {
        Arc::new(EventFd::from_value_and_flags(0, EfdFlags::EFD_NONBLOCK).unwrap())
    }

    fn is_told(event: &EventFd) -> bool {
        event.read().is_ok()
    }

    #[test]
    fn another_session_is_shown_when_the_last_user_has_let_go() {
        let mut users = Users::default();
        let events = [event(), event(), event()];
        let [a, b, c] = events.each_ref().map(|event| users.add(event.clone()));
        assert!(!users.may_leave(), "nobody asked");
        users.ask();
        assert_eq!(events.each_ref().map(|event| is_told(event)), [true; 3]);
        users.let_go(a);
        users.remove(b);
        assert!(
            users.is_away() && !users.may_leave(),
            "the third one has not"
        );
        users.let_go(c);
        assert!(users.may_leave());
        assert!(!users.may_leave(), "the answer is given once");
        users.come_back();
        assert_eq!(
            events.each_ref().map(|event| is_told(event)),
            [true, false, true]
        );
        assert!(!users.is_away());
        users.ask();
        assert!(!users.may_leave(), "they have to let go again");
    }

    #[test]
    fn a_seat_without_users_is_given_away_at_once() {
        let mut users = Users::default();
        users.ask();
        assert!(users.may_leave());
    }

    #[test]
    fn a_user_that_comes_while_the_seat_is_away_is_told() {
        let mut users = Users::default();
        users.ask();
        let late = event();
        users.add(late.clone());
        assert!(is_told(&late) && users.is_away());
        users.come_back();
        let here = event();
        users.add(here.clone());
        assert!(!is_told(&here));
        users.lose();
        assert!(is_told(&here) && users.is_gone());
    }
}
