// SPDX-License-Identifier: MPL-2.0
//! The life of one buffer as a state machine.
//!
//! Every buffer of a pool is in exactly one [`BufferState`]. A [`Step`] is legal only in certain
//! states. In others it is refused with [`IllegalStep`], and nothing changes. A step is one atomic
//! operation ([`AtomicState`]): of two threads that try the same step, one succeeds and the other is
//! refused.

use crate::{
    shared_enum::shared_enum,
    sync::{AtomicU8, Ordering},
};

/// The state of a buffer, which says what may touch its memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i32)]
pub enum BufferState {
    /// The buffer is in the free list.
    Idle,
    /// A producer has acquired the buffer and fills it.
    LockedByProducer,
    /// The buffer was submitted and is in the filled queue.
    ReadyForConsume,
    /// A consumer has taken the buffer out of the filled queue and reads it.
    LockedByConsumer,
}

shared_enum!(BufferState, c"GstPhysBufferState", {
    Idle: c"idle", c"Free, in the pool";
    LockedByProducer: c"locked-by-producer", c"Being filled";
    ReadyForConsume: c"ready-for-consume", c"Filled, in the queue";
    LockedByConsumer: c"locked-by-consumer", c"Being read";
});

impl BufferState {
    /// The name used in messages, statistics and structures.
    pub fn as_str(self) -> &'static str {
        self.nick()
    }
}

impl std::fmt::Display for BufferState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A change of state that a caller asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// A producer takes the buffer out of the free list.
    AcquireFree,
    /// The producer submits the filled buffer.
    SubmitFilled,
    /// A consumer takes the buffer out of the filled queue.
    AcquireFilled,
    /// The consumer releases the buffer.
    ReleaseFilled,
    /// A flush takes the buffer out of the filled queue. A thread that kept a reference is the
    /// producer again.
    Flush,
    /// The last reference was dropped: the buffer goes back to the free list, whatever its state.
    Recycle,
}

impl Step {
    /// All steps.
    pub const ALL: [Self; 6] = [
        Self::AcquireFree,
        Self::SubmitFilled,
        Self::AcquireFilled,
        Self::ReleaseFilled,
        Self::Flush,
        Self::Recycle,
    ];

    /// The state after this step from the state `from`; `None` if the step is illegal there.
    ///
    /// `ReleaseFilled` leads to `Idle` although references may remain. The buffer is handed out
    /// again only after the last of them was dropped (`Recycle`).
    pub fn from(self, from: BufferState) -> Option<BufferState> {
        use BufferState::*;
        match (self, from) {
            (Self::AcquireFree, Idle) => Some(LockedByProducer),
            (Self::SubmitFilled, LockedByProducer) => Some(ReadyForConsume),
            (Self::AcquireFilled, ReadyForConsume) => Some(LockedByConsumer),
            (Self::ReleaseFilled, LockedByConsumer) => Some(Idle),
            (Self::Flush, ReadyForConsume) => Some(LockedByProducer),
            (Self::Recycle, LockedByProducer | LockedByConsumer | Idle | ReadyForConsume) => {
                Some(Idle)
            }
            _ => None,
        }
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::AcquireFree => "acquire-free",
            Self::SubmitFilled => "submit-filled",
            Self::AcquireFilled => "acquire-filled",
            Self::ReleaseFilled => "release-filled",
            Self::Flush => "flush",
            Self::Recycle => "recycle",
        }
    }
}

impl std::fmt::Display for Step {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A step that the state machine does not allow; nothing was changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("buffer {id}: {step} is not allowed in state {state}")]
pub struct IllegalStep {
    /// The buffer's id.
    pub id: u32,
    /// The state that the buffer was in, and still is.
    pub state: BufferState,
    /// The step that was refused.
    pub step: Step,
}

/// The state of one buffer, which any thread may read and try to change.
pub(super) struct AtomicState(AtomicU8);

impl AtomicState {
    pub fn new() -> Self {
        Self(AtomicU8::new(BufferState::Idle as u8))
    }

    /// SeqCst, so that if a thread looks for a buffer by its id and finds it ready, the thread that
    /// releases the buffer afterwards sees that look (`slots::free_cache`).
    pub fn load(&self) -> BufferState {
        Self::decode(self.0.load(Ordering::SeqCst))
    }

    fn decode(number: u8) -> BufferState {
        const PRODUCER: u8 = BufferState::LockedByProducer as u8;
        const READY: u8 = BufferState::ReadyForConsume as u8;
        const CONSUMER: u8 = BufferState::LockedByConsumer as u8;
        match number {
            PRODUCER => BufferState::LockedByProducer,
            READY => BufferState::ReadyForConsume,
            CONSUMER => BufferState::LockedByConsumer,
            _ => BufferState::Idle,
        }
    }

    /// Takes a step, or changes nothing if the state does not allow it.
    pub fn take(&self, id: u32, step: Step) -> Result<(), IllegalStep> {
        let mut now = self.0.load(Ordering::Acquire);
        loop {
            let state = Self::decode(now);
            let Some(next) = step.from(state) else {
                return Err(IllegalStep { id, state, step });
            };
            let (success, failure) = (Ordering::SeqCst, Ordering::Acquire);
            match self
                .0
                .compare_exchange_weak(now, next as u8, success, failure)
            {
                Ok(_) => return Ok(()),
                Err(other) => now = other,
            }
        }
    }

    /// Takes a step of a buffer whose state no other thread changes, because the caller has just taken
    /// it out of the free list or is about to put it there. So this need not be one atomic operation.
    pub fn take_alone(&self, id: u32, step: Step) -> Result<(), IllegalStep> {
        let state = Self::decode(self.0.load(Ordering::Relaxed));
        let next = step.from(state).ok_or(IllegalStep { id, state, step })?;
        self.0.store(next as u8, Ordering::Relaxed);
        Ok(())
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::*;

    #[test]
    fn the_four_verbs_go_round() {
        let state = AtomicState::new();
        for (step, next) in [
            (Step::AcquireFree, BufferState::LockedByProducer),
            (Step::SubmitFilled, BufferState::ReadyForConsume),
            (Step::AcquireFilled, BufferState::LockedByConsumer),
            (Step::ReleaseFilled, BufferState::Idle),
        ] {
            state.take(7, step).unwrap();
            assert_eq!(state.load(), next);
        }
    }

    #[test]
    fn an_illegal_step_names_everything_and_changes_nothing() {
        let state = AtomicState::new();
        state.take(7, Step::AcquireFree).unwrap();
        let refused = state.take(7, Step::ReleaseFilled).unwrap_err();
        assert_eq!(
            refused.to_string(),
            "buffer 7: release-filled is not allowed in state locked-by-producer"
        );
        assert_eq!(state.load(), BufferState::LockedByProducer);
    }

    proptest::proptest! {
        #[test]
        fn no_sequence_of_steps_leaves_the_table(steps in proptest::collection::vec(0..Step::ALL.len(), 0..200)) {
            let (state, alone) = (AtomicState::new(), AtomicState::new());
            for step in steps {
                let (step, before) = (Step::ALL[step], state.load());
                let result = state.take(1, step);
                proptest::prop_assert_eq!(result, alone.take_alone(1, step));
                proptest::prop_assert_eq!(result.is_ok(), step.from(before).is_some());
                proptest::prop_assert_eq!(state.load(), step.from(before).unwrap_or(before));
                proptest::prop_assert_eq!(state.load(), alone.load());
            }
        }
    }
}

/// Loom runs these threads in all orders, up to the preemptions that `check_interleavings` allows:
/// `tests/sanitize loom`.
#[cfg(test)]
#[cfg(loom)]
mod model {
    use super::*;
    use crate::sync::{Arc, SharedBytes, check_interleavings};
    use loom::thread;

    #[test]
    fn a_buffer_is_never_held_by_two() {
        check_interleavings(|| {
            let state = Arc::new((AtomicState::new(), SharedBytes::new(0)));
            let producers: Vec<_> = (0..2)
                .map(|_| {
                    let state = Arc::clone(&state);
                    thread::spawn(move || {
                        let won = state.0.take(1, Step::AcquireFree).is_ok();
                        if won {
                            state.1.write(state.1.read() + 1);
                            state.0.take(1, Step::Recycle).unwrap();
                        }
                        won
                    })
                })
                .collect();
            let wins = producers
                .into_iter()
                .map(|p| p.join().unwrap())
                .filter(|&won| won)
                .count();
            assert!(wins >= 1);
            assert_eq!(state.1.read() as usize, wins);
            assert_eq!(state.0.load(), BufferState::Idle);
        });
    }

    #[test]
    fn what_the_producer_wrote_the_consumer_reads() {
        check_interleavings(|| {
            let state = Arc::new((AtomicState::new(), SharedBytes::new(0)));
            state.0.take(1, Step::AcquireFree).unwrap();
            let consumers: Vec<_> = (0..2)
                .map(|_| {
                    let state = Arc::clone(&state);
                    thread::spawn(move || {
                        let won = state.0.take(1, Step::AcquireFilled).is_ok();
                        if won {
                            assert_eq!(state.1.read(), 42);
                            state.0.take(1, Step::ReleaseFilled).unwrap();
                        }
                        won
                    })
                })
                .collect();
            state.1.write(42);
            state.0.take(1, Step::SubmitFilled).unwrap();
            let wins = consumers
                .into_iter()
                .map(|c| usize::from(c.join().unwrap()))
                .sum::<usize>();
            assert!(wins <= 1);
        });
    }

    #[test]
    fn of_a_double_submit_one_is_refused() {
        check_interleavings(|| {
            let state = Arc::new(AtomicState::new());
            state.take(1, Step::AcquireFree).unwrap();
            let other = {
                let state = Arc::clone(&state);
                thread::spawn(move || state.take(1, Step::SubmitFilled).is_ok())
            };
            let here = state.take(1, Step::SubmitFilled).is_ok();
            assert!(here != other.join().unwrap());
            assert_eq!(state.load(), BufferState::ReadyForConsume);
        });
    }
}
