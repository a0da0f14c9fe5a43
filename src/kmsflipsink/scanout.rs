// SPDX-License-Identifier: MPL-2.0
//! Where each frame of a CRTC is: pending (handed over, not committed), queued
//! (committed, shown at the next vertical blank), current (on the screen).
//!
//! A CRTC takes one commit at a time; the planes of one CRTC, which may belong
//! to different sinks, travel in the same commit. Pure: frames are any type,
//! and whatever leaves the machine is returned, so that the caller drops it
//! outside its lock.

/// The frames of one plane.
#[derive(Debug)]
struct Lane<F> {
    id: u32,
    pending: Option<F>,
    queued: Option<F>,
    current: Option<F>,
}

/// The frames of one CRTC.
#[derive(Debug)]
pub struct Scanout<F> {
    lanes: Vec<Lane<F>>,
    is_in_flight: bool,
}

impl<F> Default for Scanout<F> {
    fn default() -> Self {
        Self {
            lanes: Vec::new(),
            is_in_flight: false,
        }
    }
}

/// What a completed flip did to one plane.
#[derive(Debug, PartialEq, Eq)]
pub struct Flipped<F> {
    /// The plane.
    pub lane: u32,
    /// What was on the screen before, and is free now.
    pub released: Option<F>,
}

impl<F> Scanout<F> {
    /// Adds a plane. One that is there already stays as it is.
    pub fn add_lane(&mut self, id: u32) {
        if self.lane(id).is_none() {
            self.lanes.push(Lane {
                id,
                pending: None,
                queued: None,
                current: None,
            });
        }
    }

    /// Takes a plane away, with all its frames.
    pub fn remove_lane(&mut self, id: u32) -> Vec<F> {
        match self.lanes.iter().position(|lane| lane.id == id) {
            Some(index) => {
                let Lane {
                    pending,
                    queued,
                    current,
                    ..
                } = self.lanes.swap_remove(index);
                [pending, queued, current].into_iter().flatten().collect()
            }
            None => Vec::new(),
        }
    }

    /// Whether no plane is left.
    #[cfg(test)]
    pub fn is_empty(&self) -> bool {
        self.lanes.is_empty()
    }

    /// Hands over the frame to show next. Refused, with the frame, while an
    /// earlier one still waits for its commit.
    pub fn submit(&mut self, id: u32, frame: F) -> Result<(), F> {
        match self.lane_mut(id) {
            Some(lane) if lane.pending.is_none() => {
                lane.pending = Some(frame);
                Ok(())
            }
            _ => Err(frame),
        }
    }

    /// Whether `submit` would take a frame.
    pub fn has_room(&self, id: u32) -> bool {
        self.lane(id).is_some_and(|lane| lane.pending.is_none())
    }

    /// Whether a commit was made and has neither failed nor flipped.
    #[cfg(test)]
    pub fn is_in_flight(&self) -> bool {
        self.is_in_flight
    }

    /// Whether there is something to commit, now or after the flip.
    pub fn has_pending(&self) -> bool {
        self.lanes.iter().any(|lane| lane.pending.is_some())
    }

    /// Makes all pending frames queued: the caller commits them now. False if
    /// the CRTC is busy, or there are none, unless `anyway`: to set up again what
    /// is on the screen.
    pub fn begin_commit(&mut self, anyway: bool) -> bool {
        if self.is_in_flight || !(anyway || self.has_pending()) {
            return false;
        }
        for lane in self.lanes.iter_mut().filter(|lane| lane.pending.is_some()) {
            lane.queued = lane.pending.take();
        }
        self.is_in_flight = true;
        true
    }

    /// The frames of the commit in flight.
    pub fn queued(&self) -> impl Iterator<Item = (u32, &F)> {
        self.lanes
            .iter()
            .filter_map(|lane| lane.queued.as_ref().map(|frame| (lane.id, frame)))
    }

    /// What each plane is to show when the commit in flight is done: for a
    /// commit that sets the whole CRTC up again.
    pub fn next(&self) -> impl Iterator<Item = (u32, &F)> {
        self.lanes.iter().filter_map(|lane| {
            lane.queued
                .as_ref()
                .or(lane.current.as_ref())
                .map(|frame| (lane.id, frame))
        })
    }

    /// The kernel refused the commit: its frames come back.
    pub fn commit_failed(&mut self) -> Vec<(u32, F)> {
        self.is_in_flight = false;
        self.lanes
            .iter_mut()
            .filter_map(|lane| lane.queued.take().map(|frame| (lane.id, frame)))
            .collect()
    }

    /// The commit waits for something (a busy CRTC, a lost master): queued
    /// frames are pending again. A newer pending frame wins, and the older one
    /// comes back.
    pub fn commit_deferred(&mut self) -> Vec<(u32, F)> {
        self.is_in_flight = false;
        let mut passed_over = Vec::new();
        for lane in &mut self.lanes {
            match (lane.queued.take(), &lane.pending) {
                (Some(frame), None) => lane.pending = Some(frame),
                (Some(frame), Some(_)) => passed_over.push((lane.id, frame)),
                (None, _) => {}
            }
        }
        passed_over
    }

    /// The flip is done: queued becomes current, and what was current is free.
    pub fn flipped(&mut self) -> Vec<Flipped<F>> {
        if !std::mem::take(&mut self.is_in_flight) {
            return Vec::new();
        }
        self.lanes
            .iter_mut()
            .filter_map(|lane| {
                let queued = lane.queued.take()?;
                Some(Flipped {
                    lane: lane.id,
                    released: lane.current.replace(queued),
                })
            })
            .collect()
    }

    /// Takes back the frame that was not yet committed.
    pub fn withdraw(&mut self, id: u32) -> Option<F> {
        self.lane_mut(id)?.pending.take()
    }

    /// Whether any plane shows something.
    pub fn has_current(&self) -> bool {
        self.lanes.iter().any(|lane| lane.current.is_some())
    }

    /// What is on the screen.
    pub fn current(&self, id: u32) -> Option<&F> {
        self.lane(id)?.current.as_ref()
    }

    /// The newest frame of a plane, wherever it is.
    pub fn latest(&self, id: u32) -> Option<&F> {
        let lane = self.lane(id)?;
        lane.pending
            .as_ref()
            .or(lane.queued.as_ref())
            .or(lane.current.as_ref())
    }

    /// Every frame of a plane.
    #[cfg(test)]
    pub fn frames(&self, id: u32) -> impl Iterator<Item = &F> {
        self.lane(id).into_iter().flat_map(|lane| {
            [
                lane.pending.as_ref(),
                lane.queued.as_ref(),
                lane.current.as_ref(),
            ]
            .into_iter()
            .flatten()
        })
    }

    fn lane(&self, id: u32) -> Option<&Lane<F>> {
        self.lanes.iter().find(|lane| lane.id == id)
    }

    fn lane_mut(&mut self, id: u32) -> Option<&mut Lane<F>> {
        self.lanes.iter_mut().find(|lane| lane.id == id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn one_lane() -> Scanout<u32> {
        let mut scanout = Scanout::default();
        scanout.add_lane(7);
        scanout
    }

    #[test]
    fn a_frame_goes_pending_queued_current_and_is_released_by_the_next_flip() {
        let mut scanout = one_lane();
        assert_eq!(scanout.submit(7, 1), Ok(()));
        assert!(scanout.begin_commit(false));
        assert_eq!(scanout.queued().collect::<Vec<_>>(), [(7, &1)]);
        assert_eq!(scanout.current(7), None);
        assert_eq!(
            scanout.flipped(),
            [Flipped {
                lane: 7,
                released: None
            }]
        );
        assert_eq!(scanout.current(7), Some(&1));
        assert_eq!(scanout.submit(7, 2), Ok(()));
        assert!(scanout.begin_commit(false));
        assert_eq!(
            scanout.current(7),
            Some(&1),
            "on screen until the flip is done"
        );
        assert_eq!(
            scanout.flipped(),
            [Flipped {
                lane: 7,
                released: Some(1)
            }]
        );
    }

    #[test]
    fn only_one_commit_is_in_flight_and_only_one_frame_waits() {
        let mut scanout = one_lane();
        assert_eq!(scanout.submit(7, 1), Ok(()));
        assert!(scanout.begin_commit(false));
        assert_eq!(scanout.submit(7, 2), Ok(()));
        assert!(!scanout.begin_commit(false));
        assert_eq!(scanout.submit(7, 3), Err(3));
        assert!(!scanout.has_room(7));
    }

    #[test]
    fn a_refused_commit_gives_its_frames_back_and_leaves_the_screen() {
        let mut scanout = one_lane();
        scanout.submit(7, 1).unwrap();
        scanout.begin_commit(false);
        scanout.flipped();
        scanout.submit(7, 2).unwrap();
        scanout.begin_commit(false);
        assert_eq!(scanout.commit_failed(), [(7, 2)]);
        assert_eq!(scanout.current(7), Some(&1));
        assert!(!scanout.is_in_flight());
    }

    #[test]
    fn a_deferred_commit_waits_unless_a_newer_frame_came() {
        let mut scanout = one_lane();
        scanout.submit(7, 1).unwrap();
        scanout.begin_commit(false);
        assert_eq!(scanout.commit_deferred(), []);
        assert_eq!(scanout.latest(7), Some(&1));
        scanout.begin_commit(false);
        scanout.submit(7, 2).unwrap();
        assert_eq!(scanout.commit_deferred(), [(7, 1)]);
        assert_eq!(scanout.latest(7), Some(&2));
    }

    #[test]
    fn a_flip_event_without_a_commit_changes_nothing() {
        let mut scanout = one_lane();
        scanout.submit(7, 1).unwrap();
        assert_eq!(scanout.flipped(), []);
        assert_eq!(scanout.latest(7), Some(&1));
    }

    #[test]
    fn two_planes_share_a_commit_and_each_keeps_its_own_frames() {
        let mut scanout = one_lane();
        scanout.add_lane(8);
        scanout.submit(7, 1).unwrap();
        scanout.submit(8, 100).unwrap();
        assert!(scanout.begin_commit(false));
        assert_eq!(scanout.flipped().len(), 2);
        scanout.submit(8, 101).unwrap();
        assert!(scanout.begin_commit(false));
        assert_eq!(scanout.queued().collect::<Vec<_>>(), [(8, &101)]);
        assert_eq!(scanout.next().collect::<Vec<_>>(), [(7, &1), (8, &101)]);
        assert_eq!(
            scanout.flipped(),
            [Flipped {
                lane: 8,
                released: Some(100)
            }]
        );
        assert_eq!(scanout.remove_lane(7), [1]);
        assert!(!scanout.is_empty());
    }

    #[test]
    fn a_lane_that_is_not_there_takes_nothing() {
        let mut scanout = one_lane();
        assert_eq!(scanout.submit(9, 1), Err(1));
        assert_eq!(scanout.withdraw(9), None);
        assert!(scanout.remove_lane(9).is_empty());
    }

    #[derive(Debug, Clone, Copy)]
    enum Step {
        Submit(u32),
        Begin,
        BeginAnyway,
        Fail,
        Defer,
        Flip,
        Withdraw(u32),
        Remove(u32),
        Add(u32),
    }

    fn step() -> impl Strategy<Value = Step> {
        let lane = 0u32..3;
        prop_oneof![
            6 => lane.clone().prop_map(Step::Submit),
            5 => Just(Step::Begin),
            1 => Just(Step::BeginAnyway),
            5 => Just(Step::Flip),
            1 => Just(Step::Fail),
            1 => Just(Step::Defer),
            1 => lane.clone().prop_map(Step::Withdraw),
            1 => lane.clone().prop_map(Step::Remove),
            2 => lane.prop_map(Step::Add),
        ]
    }

    proptest! {
        /// Over any sequence of steps: no frame is lost or seen twice, what is
        /// on the screen or on its way there is not released, a plane shows its
        /// frames in order, and there is one commit at a time.
        #[test]
        fn frames_are_conserved_ordered_and_held_while_visible(steps in proptest::collection::vec(step(), 1..200)) {
            let mut scanout = Scanout::<(u32, u32)>::default();
            let mut inside = BTreeMap::<(u32, u32), ()>::new();
            let mut shown = BTreeMap::<u32, u32>::new();
            let mut serial = 0;
            let gone = |inside: &mut BTreeMap<_, _>, frame| {
                assert!(inside.remove(&frame).is_some(), "{frame:?} left twice");
            };
            for step in steps {
                let busy = scanout.is_in_flight();
                match step {
                    Step::Add(lane) => scanout.add_lane(lane),
                    Step::Submit(lane) => {
                        serial += 1;
                        let had_room = scanout.has_room(lane);
                        match scanout.submit(lane, (lane, serial)) {
                            Ok(()) => { prop_assert!(had_room); inside.insert((lane, serial), ()); }
                            Err(frame) => { prop_assert!(!had_room); prop_assert_eq!(frame, (lane, serial)); }
                        }
                    }
                    Step::Begin => {
                        let began = scanout.begin_commit(false);
                        prop_assert!(!(began && busy), "a second commit");
                        prop_assert_eq!(scanout.is_in_flight(), busy || began);
                    }
                    Step::BeginAnyway => prop_assert_eq!(scanout.begin_commit(true), !busy),
                    Step::Fail => for (_, frame) in scanout.commit_failed() { gone(&mut inside, frame); },
                    Step::Defer => for (_, frame) in scanout.commit_deferred() { gone(&mut inside, frame); },
                    Step::Flip => {
                        let flipped = scanout.flipped();
                        prop_assert!(busy || flipped.is_empty());
                        for Flipped { lane, released } in flipped {
                            let now = scanout.current(lane).copied().unwrap();
                            prop_assert!(shown.get(&lane).is_none_or(|&last| now.1 > last), "out of order");
                            shown.insert(lane, now.1);
                            if let Some(frame) = released { gone(&mut inside, frame); }
                        }
                    }
                    Step::Withdraw(lane) => if let Some(frame) = scanout.withdraw(lane) { gone(&mut inside, frame); },
                    Step::Remove(lane) => for frame in scanout.remove_lane(lane) { gone(&mut inside, frame); },
                }
                let mut held: Vec<_> = (0..3).flat_map(|lane| scanout.frames(lane).copied().collect::<Vec<_>>()).collect();
                held.sort_unstable();
                prop_assert_eq!(held, inside.keys().copied().collect::<Vec<_>>());
            }
        }
    }
}
