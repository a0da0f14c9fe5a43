// SPDX-License-Identifier: MPL-2.0
//! Where the frames of one screen or one hardware plane are. Pure.
//!
//! A frame is in one of three places, named as in wlroots:
//! - `pending`: handed over, but the driver does not know of it yet;
//! - `queued`: given to the driver (by a pan or a commit), not known to be on screen;
//! - `current`: on screen.
//!
//! The cycle holds the frames in all three places, so that nothing writes their memory. It gives up
//! the `current` frame only when a *later* frame is on screen. Every frame that leaves the cycle is
//! returned, so that the caller drops it outside of its lock.

/// The frames of one screen or plane.
#[derive(Debug)]
pub(crate) struct Cycle<F> {
    pending: Option<F>,
    queued: Option<F>,
    current: Option<F>,
}

impl<F> Default for Cycle<F> {
    fn default() -> Self {
        Self::showing(None)
    }
}

impl<F> Cycle<F> {
    /// A cycle with `current` on screen; `None` if the screen shows none of our frames.
    pub(crate) fn showing(current: Option<F>) -> Self {
        Self {
            pending: None,
            queued: None,
            current,
        }
    }

    /// Hands over the frame to show next. Gives it back while an earlier one is pending.
    pub(crate) fn submit(&mut self, frame: F) -> Result<(), F> {
        if self.pending.is_some() {
            return Err(frame);
        }
        self.pending = Some(frame);
        Ok(())
    }

    /// Makes the pending frame queued: the caller gives it to the driver now. `None` if no frame is
    /// pending, or one is queued already.
    pub(crate) fn queue(&mut self) -> Option<&F> {
        if self.queued.is_some() {
            return None;
        }
        self.queued = self.pending.take();
        self.queued.as_ref()
    }

    /// The queued frame is on screen now. Returns the frame that was there before.
    pub(crate) fn shown(&mut self) -> Option<F> {
        let queued = self.queued.take()?;
        self.current.replace(queued)
    }

    /// The driver refused the queued frame, which is returned. The current frame stays on screen.
    pub(crate) fn refused(&mut self) -> Option<F> {
        self.queued.take()
    }

    /// The driver has to be given the queued frame again later: it is pending again. If a newer
    /// frame is pending already, that one stays, and the older one is returned.
    pub(crate) fn deferred(&mut self) -> Option<F> {
        let queued = self.queued.take()?;
        match self.pending {
            None => self.pending.replace(queued),
            Some(_) => Some(queued),
        }
    }

    /// Takes back the pending frame.
    pub(crate) fn withdraw(&mut self) -> Option<F> {
        self.pending.take()
    }

    /// Puts a frame in the place of the current one, while the screen shows neither. Returns the old one.
    pub(crate) fn replace_current(&mut self, frame: F) -> Option<F> {
        self.current.replace(frame)
    }

    /// All frames, when the screen or plane is given up.
    pub(crate) fn into_frames(self) -> impl Iterator<Item = F> {
        [self.pending, self.queued, self.current]
            .into_iter()
            .flatten()
    }

    pub(crate) fn has_pending(&self) -> bool {
        self.pending.is_some()
    }

    pub(crate) fn queued(&self) -> Option<&F> {
        self.queued.as_ref()
    }

    pub(crate) fn current(&self) -> Option<&F> {
        self.current.as_ref()
    }

    /// The frame that is on screen once the driver has shown what it was given.
    pub(crate) fn next(&self) -> Option<&F> {
        self.queued.as_ref().or(self.current.as_ref())
    }

    /// The frame that was handed over last, wherever in the cycle it is.
    pub(crate) fn latest(&self) -> Option<&F> {
        self.pending.as_ref().or(self.next())
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.pending.is_none() && self.queued.is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::sync::Arc;

    /// A frame in these tests: its memory is free when no clone is left.
    type Token = Arc<usize>;

    /// A display that latches frames with delay, and memory that one writer takes in any order.
    struct ModelDisplay {
        cycle: Cycle<Token>,
        tokens: Vec<Token>,
        /// What the display reads, and what it may latch at any moment.
        on_screen: usize,
        latching: Option<usize>,
        writing: Vec<Token>,
        shown: Vec<usize>,
        submitted: Vec<usize>,
    }

    #[derive(Clone, Debug)]
    enum Action {
        Take(usize),
        Submit(usize),
        Repeat,
        Queue,
        QueueRefused,
        Latch,
        Withdraw,
    }

    impl ModelDisplay {
        fn new(n: usize, visible: usize) -> Self {
            let tokens: Vec<Token> = (0..n).map(Arc::new).collect();
            Self {
                cycle: Cycle::showing(Some(tokens[visible].clone())),
                tokens,
                on_screen: visible,
                latching: None,
                writing: vec![],
                shown: vec![],
                submitted: vec![],
            }
        }

        fn free(&self) -> Vec<usize> {
            (0..self.tokens.len())
                .filter(|&i| Arc::strong_count(&self.tokens[i]) == 1)
                .collect()
        }

        fn act(&mut self, action: &Action) {
            match action {
                Action::Take(k) => {
                    let free = self.free();
                    if let Some(&frame) = free.get(k % free.len().max(1)) {
                        self.writing.push(self.tokens[frame].clone());
                    }
                }
                Action::Submit(k) if !self.writing.is_empty() => {
                    let token = self.writing.remove(k % self.writing.len());
                    let frame = *token;
                    match self.cycle.submit(token) {
                        Ok(()) => self.submitted.push(frame),
                        Err(token) => self.writing.push(token),
                    }
                }
                Action::Submit(_) => {}
                Action::Repeat => {
                    if let Some(token) = self.cycle.current().cloned()
                        && self.cycle.submit(token.clone()).is_ok()
                    {
                        self.submitted.push(*token);
                    }
                }
                Action::Queue => {
                    if let Some(frame) = self.cycle.queue() {
                        assert!(self.latching.is_none());
                        self.latching = Some(**frame);
                    }
                }
                Action::QueueRefused => {
                    if let Some(frame) = self.cycle.queue().cloned() {
                        assert_eq!(self.cycle.refused(), Some(frame));
                    }
                }
                Action::Latch => {
                    if let Some(frame) = self.latching.take() {
                        self.on_screen = frame;
                        self.shown.push(frame);
                        drop(self.cycle.shown());
                    }
                }
                Action::Withdraw => drop(self.cycle.withdraw()),
            }
            self.check();
        }

        fn check(&self) {
            for token in &self.writing {
                assert_ne!(**token, self.on_screen, "written while on screen");
                assert_ne!(
                    Some(**token),
                    self.latching,
                    "written while about to be on screen"
                );
            }
            assert!(!self.free().contains(&self.on_screen), "on screen and free");
        }
    }

    fn actions() -> impl Strategy<Value = Vec<Action>> {
        let action = prop_oneof![
            4 => (0usize..8).prop_map(Action::Take),
            4 => (0usize..8).prop_map(Action::Submit),
            1 => Just(Action::Repeat),
            4 => Just(Action::Queue),
            1 => Just(Action::QueueRefused),
            4 => Just(Action::Latch),
            1 => Just(Action::Withdraw),
        ];
        proptest::collection::vec(action, 0..200)
    }

    proptest! {
        #[test]
        fn a_page_is_never_on_screen_and_written_at_once(n in 2usize..6, visible in 0usize..6, actions in actions()) {
            let mut display = ModelDisplay::new(n, visible % n);
            for action in &actions {
                display.act(action);
            }
        }

        /// After any sequence of actions the driver can finish, and all frames but one are free then.
        #[test]
        fn the_cycle_alone_frees_every_page_but_the_one_on_screen(n in 2usize..6, actions in actions()) {
            let mut display = ModelDisplay::new(n, 0);
            for action in &actions {
                display.act(action);
            }
            display.writing.clear();
            for _ in 0..3 {
                display.act(&Action::Queue);
                display.act(&Action::Latch);
            }
            prop_assert!(display.cycle.is_idle());
            prop_assert_eq!(display.free().len(), n - 1);
        }

        /// No frame is lost or shown out of order unless the driver refused it or it was withdrawn.
        #[test]
        fn frames_are_shown_in_the_order_they_came(n in 2usize..6, actions in actions()) {
            let mut display = ModelDisplay::new(n, 0);
            for action in actions.iter().filter(|s| !matches!(s, Action::QueueRefused | Action::Withdraw)) {
                display.act(action);
            }
            for _ in 0..3 {
                display.act(&Action::Latch);
                display.act(&Action::Queue);
            }
            prop_assert_eq!(display.shown, display.submitted);
        }

        /// No frame is lost or returned twice, and frames reach the screen in order.
        #[test]
        fn frames_are_conserved_ordered_and_held_while_visible(calls in proptest::collection::vec(0..6, 1..200)) {
            let mut cycle = Cycle::default();
            let mut inside = std::collections::BTreeSet::new();
            let (mut serial, mut last) = (0, 0);
            for call in calls {
                let had_room = !cycle.has_pending();
                let left = match call {
                    0 => {
                        serial += 1;
                        inside.insert(serial);
                        let refused = cycle.submit(serial).err();
                        prop_assert_eq!(refused.is_none(), had_room);
                        refused
                    }
                    1 => {
                        let was_queued = cycle.queued().is_some();
                        prop_assert!(!(cycle.queue().is_some() && was_queued));
                        None
                    }
                    2 => {
                        let queued = cycle.queued().copied();
                        let released = cycle.shown();
                        if let Some(now) = queued {
                            prop_assert!(now > last, "out of order");
                            prop_assert_eq!(cycle.current(), Some(&now));
                            last = now;
                        }
                        released
                    }
                    3 => cycle.refused(),
                    4 => cycle.deferred(),
                    _ => cycle.withdraw(),
                };
                if let Some(frame) = left {
                    prop_assert!(inside.remove(&frame), "{frame} left twice");
                }
                let held = [&cycle.pending, &cycle.queued, &cycle.current];
                let held: std::collections::BTreeSet<_> = held.into_iter().flatten().copied().collect();
                prop_assert_eq!(&held, &inside);
                prop_assert_eq!(cycle.latest(), held.iter().max());
            }
            prop_assert_eq!(cycle.into_frames().count(), inside.len());
        }
    }

    #[test]
    fn a_frame_goes_pending_queued_current_and_is_released_by_the_next() {
        let mut cycle = Cycle::default();
        assert_eq!(cycle.submit(1), Ok(()));
        assert_eq!(cycle.queue(), Some(&1));
        assert_eq!((cycle.current(), cycle.next()), (None, Some(&1)));
        assert_eq!(cycle.shown(), None);
        assert_eq!(cycle.submit(2), Ok(()));
        assert_eq!(cycle.queue(), Some(&2));
        assert_eq!(cycle.current(), Some(&1), "on screen until 2 is");
        assert_eq!(cycle.shown(), Some(1));
    }

    #[test]
    fn only_one_frame_is_queued_and_only_one_waits() {
        let mut cycle = Cycle::default();
        assert_eq!(cycle.submit(1), Ok(()));
        assert_eq!(cycle.queue(), Some(&1));
        assert_eq!(cycle.submit(2), Ok(()));
        assert_eq!(cycle.queue(), None);
        assert_eq!(cycle.submit(3), Err(3));
    }

    #[test]
    fn a_refused_frame_comes_back_and_leaves_the_screen() {
        let mut cycle = Cycle::showing(Some(1));
        cycle.submit(2).unwrap();
        cycle.queue();
        assert_eq!(cycle.refused(), Some(2));
        assert_eq!(cycle.current(), Some(&1));
        assert!(cycle.is_idle());
    }

    #[test]
    fn a_deferred_frame_waits_unless_a_newer_one_came() {
        let mut cycle = Cycle::default();
        cycle.submit(1).unwrap();
        cycle.queue();
        assert_eq!(cycle.deferred(), None);
        assert_eq!(cycle.latest(), Some(&1));
        cycle.queue();
        cycle.submit(2).unwrap();
        assert_eq!(cycle.deferred(), Some(1));
        assert_eq!(cycle.latest(), Some(&2));
    }

    #[test]
    fn a_flip_without_a_queued_frame_changes_nothing() {
        let mut cycle = Cycle::showing(Some(0));
        cycle.submit(1).unwrap();
        assert_eq!(cycle.shown(), None);
        assert_eq!((cycle.latest(), cycle.current()), (Some(&1), Some(&0)));
    }
}
