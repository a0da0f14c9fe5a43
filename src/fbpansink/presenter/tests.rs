// SPDX-License-Identifier: MPL-2.0

use std::sync::mpsc::{Receiver, Sender, channel};

use super::*;

/// Reports each pan, which returns the result that the test sends.
struct ScriptedDevice {
    pans: Mutex<Sender<usize>>,
    answers: Mutex<Receiver<Result<(), &'static str>>>,
}

impl Scanout for ScriptedDevice {
    type Error = &'static str;
    fn pan(&self, fb_page: usize) -> Result<(), Self::Error> {
        let _ = self.pans.lock().send(fb_page);
        self.answers.lock().recv().unwrap_or(Ok(()))
    }
    fn may_pass(&self, error: &Self::Error) -> bool {
        *error == "a moment"
    }
    fn wait_for_vsync(&self) {}
}

struct Stage {
    presenter: Presenter<Arc<usize>>,
    pages: Vec<Arc<usize>>,
    panned: Receiver<usize>,
    answer: Sender<Result<(), &'static str>>,
    errors: Receiver<&'static str>,
    shown: Receiver<(usize, Option<u64>)>,
}

fn stage(n: usize) -> Stage {
    let (pans, panned) = channel();
    let (answer, answers) = channel();
    let (error, errors) = channel();
    let (on_screen, shown) = channel();
    let pages: Vec<_> = (0..n).map(Arc::new).collect();
    let device = Arc::new(ScriptedDevice {
        pans: Mutex::new(pans),
        answers: Mutex::new(answers),
    });
    let current = Some(Held {
        fb_page: 0,
        holder: pages[0].clone(),
    });
    let on_error = move |e| error.send(e).unwrap();
    let on_shown = move |page: &Arc<usize>, at| {
        let _ = on_screen.send((**page, at));
    };
    let presenter =
        Presenter::new(device, Clock::PanWaits, n, current, on_error, on_shown).unwrap();
    Stage {
        presenter,
        pages,
        panned,
        answer,
        errors,
        shown,
    }
}

impl Stage {
    fn present(&self, page: usize) -> Result<Presented, Refusal> {
        self.presenter.present(page, self.pages[page].clone())
    }
    fn is_free(&self, page: usize) -> bool {
        Arc::strong_count(&self.pages[page]) == 1
    }
}

const LONG: Duration = Duration::from_secs(60);

#[test]
fn a_page_is_free_only_after_the_next_one_is_on_screen() {
    let stage = stage(2);
    stage.present(1).unwrap();
    assert_eq!(stage.panned.recv(), Ok(1));
    assert!(!stage.is_free(0) && !stage.is_free(1));
    stage.answer.send(Ok(())).unwrap();
    assert!(stage.presenter.wait_idle(LONG));
    assert!(stage.is_free(0) && !stage.is_free(1));
}

#[test]
fn each_page_is_told_with_the_time_at_which_its_pan_was_over() {
    let stage = stage(3);
    let mut last_ns = monotonic_ns();
    for page in [1, 2] {
        stage.present(page).unwrap();
        assert_eq!(stage.panned.recv(), Ok(page));
        assert!(stage.shown.try_recv().is_err(), "not on the screen yet");
        let answered_ns = monotonic_ns();
        stage.answer.send(Ok(())).unwrap();
        let (shown, at) = stage.shown.recv().unwrap();
        let at = at.unwrap();
        assert_eq!(shown, page);
        assert!(last_ns <= answered_ns && answered_ns <= at && at <= monotonic_ns());
        last_ns = at;
    }
}

#[test]
fn the_same_page_twice_pans_once() {
    let stage = stage(3);
    stage.present(1).unwrap();
    stage.present(1).unwrap();
    assert_eq!(stage.panned.recv(), Ok(1));
    stage.present(1).unwrap();
    stage.answer.send(Ok(())).unwrap();
    assert!(stage.presenter.wait_idle(LONG));
    stage.present(1).unwrap();
    assert!(stage.presenter.wait_idle(LONG));
    assert!(stage.panned.try_recv().is_err());
}

#[test]
fn a_page_shown_again_after_another_is_a_pan_of_its_own() {
    let stage = stage(3);
    stage.present(1).unwrap();
    assert_eq!(stage.panned.recv(), Ok(1));
    stage.present(0).unwrap();
    stage.answer.send(Ok(())).unwrap();
    assert_eq!(stage.panned.recv(), Ok(0));
    assert!(!stage.is_free(0) && !stage.is_free(1));
    stage.answer.send(Ok(())).unwrap();
    assert!(stage.presenter.wait_idle(LONG));
    assert!(!stage.is_free(0) && stage.is_free(1));
}

#[test]
fn flushing_wakes_whoever_waits_for_room() {
    let stage = stage(4);
    stage.present(1).unwrap();
    assert_eq!(stage.panned.recv(), Ok(1));
    stage.present(2).unwrap();
    std::thread::scope(|scope| {
        let (presenter, page) = (&stage.presenter, stage.pages[3].clone());
        let waiter = scope.spawn(move || presenter.present(3, page));
        stage.presenter.set_flushing(true);
        assert_eq!(waiter.join().unwrap(), Err(Refusal::Flushing));
    });
    assert!(stage.is_free(3));
    assert_eq!(stage.present(3), Err(Refusal::Flushing));
    stage.presenter.set_flushing(false);
    stage.answer.send(Ok(())).unwrap();
    stage.answer.send(Ok(())).unwrap();
    assert!(stage.presenter.wait_idle(LONG));
    assert_eq!(stage.present(3), Ok(Presented::Shown));
    stage.answer.send(Ok(())).unwrap();
}

#[test]
fn a_failed_pan_is_told_once_and_frees_what_is_not_on_screen() {
    let stage = stage(3);
    stage.present(1).unwrap();
    stage.answer.send(Err("EBUSY")).unwrap();
    assert_eq!(stage.errors.recv(), Ok("EBUSY"));
    stage.presenter.wait_idle(LONG);
    assert_eq!(stage.present(2), Err(Refusal::Failed));
    while !stage.is_free(1) {
        std::thread::yield_now(); // it is released a moment after the error is reported
    }
    assert!(stage.is_free(2));
    assert!(!stage.is_free(0), "still on screen");
}

#[test]
fn a_pan_that_another_program_prevents_for_a_moment_is_made_later() {
    let stage = stage(3);
    stage.present(1).unwrap();
    for _ in 0..3 {
        assert_eq!(stage.panned.recv(), Ok(1));
        stage.answer.send(Err("a moment")).unwrap();
    }
    assert_eq!(stage.panned.recv(), Ok(1));
    assert!(!stage.is_free(0) && !stage.is_free(1));
    stage.answer.send(Ok(())).unwrap();
    assert!(stage.presenter.wait_idle(LONG));
    assert!(stage.errors.try_recv().is_err());
    assert!(stage.is_free(0) && !stage.is_free(1));
}

#[test]
fn away_nothing_is_panned_to_and_the_consoles_page_is_kept() {
    let stage = stage(3);
    stage.present(1).unwrap();
    stage.answer.send(Ok(())).unwrap();
    assert!(stage.presenter.wait_idle(LONG));
    assert_eq!(stage.panned.try_recv(), Ok(1));
    assert_eq!(stage.presenter.suspend(LONG), Some(1));
    assert_eq!(stage.present(2), Ok(Presented::Away));
    assert_eq!(stage.present(0), Ok(Presented::Away));
    assert!(stage.presenter.wait_idle(LONG), "nothing waits");
    assert!(stage.is_free(2) && !stage.is_free(1) && !stage.is_free(0));
    stage.presenter.resume();
    assert!(stage.is_free(0));
    assert!(stage.panned.try_recv().is_err());
    assert_eq!(stage.present(2), Ok(Presented::Shown));
    assert_eq!(stage.panned.recv(), Ok(2));
    stage.answer.send(Ok(())).unwrap();
    assert!(stage.presenter.wait_idle(LONG));
}

#[test]
fn what_waits_when_the_screen_goes_is_given_back() {
    let stage = stage(4);
    stage.present(1).unwrap();
    assert_eq!(stage.panned.recv(), Ok(1));
    stage.present(2).unwrap();
    std::thread::scope(|scope| {
        let suspending = scope.spawn(|| stage.presenter.suspend(LONG));
        while !stage.is_free(2) && !suspending.is_finished() {
            std::thread::yield_now();
            if stage.presenter.is_away() {
                let _ = stage.answer.send(Ok(()));
            }
        }
        assert_eq!(suspending.join().unwrap(), Some(1));
    });
    assert!(stage.is_free(0) && stage.is_free(2) && !stage.is_free(1));
}

#[test]
fn dropping_it_gives_everything_back() {
    let Stage {
        presenter,
        pages,
        answer,
        ..
    } = stage(3);
    presenter.present(1, pages[1].clone()).unwrap();
    presenter.present(2, pages[2].clone()).unwrap();
    drop(answer); // pans return at once from now on
    drop(presenter);
    assert!(pages.iter().all(|page| Arc::strong_count(page) == 1));
}

#[test]
fn the_page_on_screen_is_panned_to_again_unless_another_one_comes() {
    let stage = stage(3);
    stage.presenter.pan_again(); // to the one from before
    assert_eq!(stage.panned.recv(), Ok(0));
    stage.present(1).unwrap();
    stage.presenter.pan_again(); // the pan to 0 has not returned, 1 is pending
    stage.answer.send(Ok(())).unwrap();
    assert_eq!(stage.panned.recv(), Ok(1));
    stage.answer.send(Ok(())).unwrap();
    assert!(stage.presenter.wait_idle(LONG));
    assert!(stage.panned.try_recv().is_err());
    assert!(stage.is_free(0) && !stage.is_free(1));
}

#[test]
fn one_page_needs_no_thread_and_never_waits() {
    let stage = stage(1);
    for _ in 0..3 {
        stage.present(0).unwrap();
        assert!(stage.is_free(0));
    }
    assert!(stage.panned.try_recv().is_err());
}
