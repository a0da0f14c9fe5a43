// SPDX-License-Identifier: MPL-2.0
//! The page cycle: which fb_page is on screen, about to be, or waiting. Pure.
//!
//! Three names carry it all, as in wlroots:
//! - `pending`: handed in, not yet told to the driver;
//! - `queued`: told to the driver (pan issued), not known to be on screen;
//! - `current`: on screen.
//!
//! A fb_page in any of the three is held: its holder (a buffer) keeps it from
//! the pool, so nobody writes it. The holder of `current` is let go when a
//! *later* pan has taken effect, never before; from the moment a pan is issued
//! until it has taken effect both pages count as on screen.
//!
//! One fb_page only is different: it is always on screen, so holding it would
//! stop everything. Nothing is held then, and tearing is the price.

/// What is held for one fb_page: `holder` lets it go when dropped.
#[derive(Debug, PartialEq, Eq)]
pub struct Held<H> {
    /// Index of the fb_page.
    pub fb_page: usize,
    /// Keeps the fb_page away from writers.
    pub holder: H,
}

/// What [`PageCycle::submit`] did.
#[derive(Debug, PartialEq, Eq)]
pub enum Submitted<H> {
    /// A pan to it is now pending.
    Pending,
    /// It is what is shown, or the last that will be: nothing to do. The
    /// holder comes back, to be dropped outside any lock.
    Already(H),
    /// There is a pending one: wait until it was taken. The holder comes back.
    Full(H),
}

/// See the module's documentation.
#[derive(Debug)]
pub struct PageCycle<H> {
    single: bool,
    pending: Option<Held<H>>,
    queued: Option<Held<H>>,
    current: Option<Held<H>>,
}

impl<H> PageCycle<H> {
    /// A cycle over `fb_pages` pages with `current` on screen; `None` when
    /// nobody can write what is on screen (nothing of ours).
    pub fn new(fb_pages: usize, current: Option<Held<H>>) -> Self {
        let single = fb_pages <= 1;
        Self {
            single,
            pending: None,
            queued: None,
            current: if single { None } else { current },
        }
    }

    /// Hands in a written fb_page to be shown after all that came before.
    pub fn submit(&mut self, fb_page: usize, holder: H) -> Submitted<H> {
        if self.single {
            return Submitted::Already(holder);
        }
        let last = self
            .pending
            .as_ref()
            .or(self.queued.as_ref())
            .or(self.current.as_ref());
        if last.is_some_and(|held| held.fb_page == fb_page) {
            return Submitted::Already(holder);
        }
        if self.pending.is_some() {
            return Submitted::Full(holder);
        }
        self.pending = Some(Held { fb_page, holder });
        Submitted::Pending
    }

    /// The fb_page to pan to now, if there is one and no pan is under way.
    pub fn queue(&mut self) -> Option<usize> {
        if self.queued.is_some() {
            return None;
        }
        self.queued = self.pending.take();
        self.queued.as_ref().map(|held| held.fb_page)
    }

    /// The pan to the queued fb_page has taken effect. What was on screen
    /// before comes back and is free once dropped.
    pub fn taken_effect(&mut self) -> Option<Held<H>> {
        let queued = self.queued.take()?;
        self.current.replace(queued)
    }

    /// The driver refused the pan: what was on screen still is. The refused
    /// one comes back.
    pub fn refused(&mut self) -> Option<Held<H>> {
        self.queued.take()
    }

    /// Gives back all that is neither on screen nor about to be.
    pub fn drain(&mut self) -> Option<Held<H>> {
        self.pending.take()
    }

    /// Nothing pending and no pan under way.
    pub fn is_idle(&self) -> bool {
        self.pending.is_none() && self.queued.is_none()
    }

    /// The fb_page on screen, as far as is known.
    pub fn current(&self) -> Option<usize> {
        self.current.as_ref().map(|held| held.fb_page)
    }

    #[cfg(test)]
    /// How many fb_pages are held; at most three, and one when idle.
    pub fn held(&self) -> usize {
        [&self.pending, &self.queued, &self.current]
            .into_iter()
            .flatten()
            .count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::sync::Arc;

    /// The holder in these tests: the fb_page is free when no clone is left.
    type Token = Arc<usize>;

    /// A display that latches a pan at some later moment, and a pool of pages
    /// that one writer takes in any order.
    struct World {
        cycle: PageCycle<Token>,
        tokens: Vec<Token>,
        /// What the scanout shows, and what it may latch at any moment.
        on_screen: usize,
        latching: Option<usize>,
        /// Lent to the writer.
        writing: Vec<Token>,
        shown: Vec<usize>,
        submitted: Vec<usize>,
    }

    #[derive(Clone, Debug)]
    enum Step {
        Take(usize),
        Submit(usize),
        Repeat,
        Pan,
        PanFails,
        Latch,
        Drain,
    }

    impl World {
        fn new(n: usize, visible: usize) -> Self {
            let tokens: Vec<Token> = (0..n).map(Arc::new).collect();
            let cycle = PageCycle::new(
                n,
                Some(Held {
                    fb_page: visible,
                    holder: tokens[visible].clone(),
                }),
            );
            Self {
                cycle,
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

        fn step(&mut self, step: &Step) {
            match step {
                Step::Take(k) => {
                    let free = self.free();
                    if let Some(&page) = free.get(k % free.len().max(1)) {
                        self.writing.push(self.tokens[page].clone());
                    }
                }
                Step::Submit(k) if !self.writing.is_empty() => {
                    let token = self.writing.remove(k % self.writing.len());
                    let page = *token;
                    match self.cycle.submit(page, token) {
                        Submitted::Pending => self.submitted.push(page),
                        Submitted::Already(_) => panic!("page {page} was free and yet held"),
                        Submitted::Full(token) => self.writing.push(token),
                    }
                }
                Step::Submit(_) => {}
                Step::Repeat => {
                    if let Some(page) = self.cycle.current() {
                        let token = self.tokens[page].clone();
                        match self.cycle.submit(page, token) {
                            Submitted::Pending => self.submitted.push(page),
                            Submitted::Already(_) | Submitted::Full(_) => {}
                        }
                    }
                }
                Step::Pan => {
                    if let Some(page) = self.cycle.queue() {
                        assert!(self.latching.is_none());
                        self.latching = Some(page);
                    }
                }
                Step::PanFails => {
                    if let Some(page) = self.cycle.queue() {
                        assert_eq!(self.cycle.refused().map(|held| held.fb_page), Some(page));
                    }
                }
                Step::Latch => {
                    if let Some(page) = self.latching.take() {
                        self.on_screen = page;
                        self.shown.push(page);
                        drop(self.cycle.taken_effect());
                    }
                }
                Step::Drain => drop(self.cycle.drain()),
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
            assert!(self.cycle.held() <= 3);
        }
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            4 => (0usize..8).prop_map(Step::Take),
            4 => (0usize..8).prop_map(Step::Submit),
            1 => Just(Step::Repeat),
            4 => Just(Step::Pan),
            1 => Just(Step::PanFails),
            4 => Just(Step::Latch),
            1 => Just(Step::Drain),
        ];
        proptest::collection::vec(step, 0..200)
    }

    proptest! {
        #[test]
        fn a_page_is_never_on_screen_and_written_at_once(n in 2usize..6, visible in 0usize..6, steps in steps()) {
            let mut world = World::new(n, visible % n);
            for step in &steps {
                world.step(step);
            }
        }

        /// Whatever happened, letting the driver finish frees all but one.
        #[test]
        fn the_cycle_alone_frees_every_page_but_the_one_on_screen(n in 2usize..6, steps in steps()) {
            let mut world = World::new(n, 0);
            for step in &steps {
                world.step(step);
            }
            world.writing.clear();
            for _ in 0..3 {
                world.step(&Step::Pan);
                world.step(&Step::Latch);
            }
            prop_assert!(world.cycle.is_idle());
            prop_assert_eq!(world.free().len(), n - 1);
        }

        /// No frame is lost or shown out of turn unless a pan failed or the
        /// cycle was drained.
        #[test]
        fn frames_are_shown_in_the_order_they_came(n in 2usize..6, steps in steps()) {
            let mut world = World::new(n, 0);
            for step in steps.iter().filter(|s| !matches!(s, Step::PanFails | Step::Drain)) {
                world.step(step);
            }
            for _ in 0..3 {
                world.step(&Step::Latch);
                world.step(&Step::Pan);
            }
            prop_assert_eq!(world.shown, world.submitted);
        }
    }

    #[test]
    fn one_page_is_never_held() {
        let mut cycle = PageCycle::new(
            1,
            Some(Held {
                fb_page: 0,
                holder: (),
            }),
        );
        assert_eq!(cycle.held(), 0);
        assert_eq!(cycle.submit(0, ()), Submitted::Already(()));
        assert_eq!(cycle.queue(), None);
        assert!(cycle.is_idle());
    }

    #[test]
    fn the_same_page_twice_pans_once() {
        let mut cycle = PageCycle::new(3, None);
        assert_eq!(cycle.submit(1, 'a'), Submitted::Pending);
        assert_eq!(cycle.submit(1, 'b'), Submitted::Already('b'));
        assert_eq!(cycle.queue(), Some(1));
        assert_eq!(cycle.submit(1, 'c'), Submitted::Already('c'));
        assert_eq!(cycle.taken_effect(), None);
        assert_eq!(cycle.submit(1, 'd'), Submitted::Already('d'));
        assert_eq!(cycle.queue(), None);
    }

    #[test]
    fn a_page_shown_again_after_another_is_a_pan_of_its_own() {
        let mut cycle = PageCycle::new(3, None);
        assert_eq!(cycle.submit(0, 'a'), Submitted::Pending);
        assert_eq!(cycle.queue(), Some(0));
        cycle.taken_effect();
        assert_eq!(cycle.submit(1, 'b'), Submitted::Pending);
        assert_eq!(cycle.queue(), Some(1));
        assert_eq!(cycle.submit(0, 'c'), Submitted::Pending);
        assert_eq!(
            cycle.taken_effect(),
            Some(Held {
                fb_page: 0,
                holder: 'a'
            })
        );
        assert_eq!(cycle.held(), 2, "0 stays held: it is pending again");
    }

    #[test]
    fn a_second_pan_waits_for_the_first() {
        let mut cycle = PageCycle::new(3, None);
        cycle.submit(0, ());
        assert_eq!(cycle.queue(), Some(0));
        assert_eq!(cycle.submit(1, ()), Submitted::Pending);
        assert_eq!(cycle.queue(), None);
        assert_eq!(cycle.submit(2, ()), Submitted::Full(()));
    }
}
