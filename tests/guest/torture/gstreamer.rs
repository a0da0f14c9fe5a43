// SPDX-License-Identifier: MPL-2.0
//! What applications do to pipelines, from several threads at once. For any display, and for none.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, RwLock};
use std::thread;

use gst::prelude::*;

use crate::runner::{Random, Round};
use crate::screen::{self, Clip, assert_goes_on, frames_or_error, has_failed_by_a_stop, progress};
use crate::support::player::{CLOCK_LIMIT, Player};

/// Things that one thread does to a pipeline.
type Deed = fn(&gst::Pipeline, &mut Random);

/// Does these things `times` times, each in a thread of its own, all at once.
fn storm(player: &Player, round: &Round, deeds: &[Deed], times: usize) {
    thread::scope(|scope| {
        for (n, deed) in deeds.iter().enumerate() {
            let mut random = Random::new(round.random.clone().below(1 << 40) + n as u64);
            scope.spawn(move || {
                for _ in 0..times {
                    deed(&player.pipeline, &mut random);
                    random.nap(15_000);
                }
            });
        }
    });
}

/// Held by seeks for reading, and by flushes for writing: GstBaseSrc waits for ever for the end of a flush if a seek has
/// ended that flush already and the stream stands still in PAUSED.
static FLUSH: RwLock<()> = RwLock::new(());

fn flushing_seek(pipeline: &gst::Pipeline, random: &mut Random) {
    let _no_flush = FLUSH.read().unwrap_or_else(|e| e.into_inner());
    let flags = match random.below(2) {
        0 => gst::SeekFlags::FLUSH,
        _ => gst::SeekFlags::FLUSH | gst::SeekFlags::ACCURATE,
    };
    // Refused if the other threads have just stopped the pipeline.
    let _ = pipeline.seek_simple(flags, gst::ClockTime::from_mseconds(random.below(900)));
}

fn flush(pipeline: &gst::Pipeline, random: &mut Random) {
    let _no_seek = FLUSH.write().unwrap_or_else(|e| e.into_inner());
    let source = pipeline.by_name("source").expect("a source");
    source.send_event(gst::event::FlushStart::new());
    random.nap(3_000);
    source.send_event(gst::event::FlushStop::new(true));
}

fn pause_or_play(pipeline: &gst::Pipeline, random: &mut Random) {
    let state = match random.below(2) {
        0 => gst::State::Paused,
        _ => gst::State::Playing,
    };
    let _ = pipeline.set_state(state);
}

fn any_state(pipeline: &gst::Pipeline, random: &mut Random) {
    let states = [
        gst::State::Null,
        gst::State::Ready,
        gst::State::Paused,
        gst::State::Playing,
    ];
    let _ = pipeline.set_state(states[random.below(4) as usize]);
}

/// Nothing serialized, which would wait for the streaming thread, in PAUSED for ever.
fn ask(pipeline: &gst::Pipeline, _: &mut Random) {
    let Some(sink) = pipeline.by_name("sink") else {
        return;
    };
    let _ = sink.property::<gst::Structure>("stats");
    let source = pipeline.by_name("source").expect("a source");
    let _ = source.property::<gst::Structure>("stats");
    let _ = pipeline.query_position::<gst::ClockTime>();
    let _ = pipeline.query_duration::<gst::ClockTime>();
    let pad = sink.static_pad("sink").expect("a pad");
    let _ = pad.query_caps(None);
    let mut latency = gst::query::Latency::new();
    let _ = pipeline.query(&mut latency);
}

fn reconfigure(pipeline: &gst::Pipeline, _: &mut Random) {
    let Some(sink) = pipeline.by_name("sink") else {
        return;
    };
    let pad = sink.static_pad("sink").expect("a pad");
    pad.push_event(gst::event::Reconfigure::new());
}

/// Brings the pipeline to PLAYING after a storm; it must show frames again.
#[track_caller]
fn assert_recovered(player: &Player) {
    player.reach(gst::State::Playing);
    assert_goes_on(player);
}

fault!(flushes_seeks_pauses_and_queries_at_once, 3, |round| {
    let clip = Clip::new();
    let between =
        ["", "! queue", "! queue max-size-buffers=1 ! identity"][round.number as usize % 3];
    let player = clip.player(between);
    player.reach(gst::State::Playing);
    storm(
        &player,
        round,
        &[
            flushing_seek,
            flushing_seek,
            flush,
            pause_or_play,
            ask,
            reconfigure,
        ],
        12,
    );
    assert_recovered(&player);
    round.stop(&player);
});

fault!(all_states_and_seeks_at_once, 3, |round| {
    let clip = Clip::new();
    let between = ["", "! queue"][round.number as usize % 2];
    let player = clip.player(between);
    player.start();
    storm(
        &player,
        round,
        &[any_state, any_state, flushing_seek, ask, reconfigure],
        12,
    );
    if has_failed_by_a_stop(&player) || round.number % 2 == 0 {
        player.reach(gst::State::Null);
    }
    assert_recovered(&player);
    player.reach(gst::State::Null);
});

fault!(starts_that_are_stopped_at_once, 3, |round| {
    let clip = Clip::new();
    let player = clip.player("");
    for _ in 0..5 {
        player.start();
        round.random.nap(20_000);
        player.stop();
    }
    assert_recovered(&player);
    round.stop(&player);
});

fault!(renegotiation_while_seeks_and_pauses_go_on, 3, |round| {
    fn other_size(pipeline: &gst::Pipeline, random: &mut Random) {
        let filter = pipeline.by_name("filter").expect("a capsfilter");
        let (width, height) = (
            64 + 16 * random.below(9) as i32,
            48 + 16 * random.below(9) as i32,
        );
        let caps = gst::Caps::builder("video/x-raw")
            .field("width", width)
            .field("height", height)
            .field("framerate", gst::Fraction::new(60, 1))
            .build();
        filter.set_property("caps", caps);
    }
    let queue = ["", "! queue"][round.number as usize % 2];
    let player = Player::new(&format!(
        "videotestsrc name=source ! capsfilter name=filter caps-change-mode=delayed \
         caps=video/x-raw,width=64,height=48,framerate=60/1 {queue} ! torturegate name=gate ! {}",
        screen::sink()
    ));
    player.reach(gst::State::Playing);
    storm(
        &player,
        round,
        &[other_size, pause_or_play, reconfigure],
        12,
    );
    assert_recovered(&player);
    round.stop(&player);
});

fault!(pads_unlinked_and_linked_while_frames_flow, 3, |round| {
    let clip = Clip::new();
    let player = clip.player(["! identity name=i", "! queue name=i"][round.number as usize % 2]);
    player.reach(gst::State::Playing);
    let source = player.pipeline.by_name("source").expect("a source");
    let pad = source.static_pad("src").expect("a pad");
    for _ in 0..6 {
        let done = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&done);
        pad.add_probe(gst::PadProbeType::IDLE, move |pad, _| {
            if let Some(peer) = pad.peer() {
                pad.unlink(&peer).expect("they were linked");
                pad.link(&peer).expect("they were linked before");
            }
            told.store(true, Ordering::Release);
            gst::PadProbeReturn::Remove
        });
        player.wait_until("the unlink", |_| done.load(Ordering::Acquire));
        round.random.nap(30_000);
    }
    assert_goes_on(&player);
    // An unlink in the middle of a push is an error of the stream, from which a restart recovers.
    let peer = pad.peer().expect("they are linked");
    pad.unlink(&peer).expect("they were linked");
    player.wait_until("an error", |player| !player.errors().is_empty());
    player.reach(gst::State::Null);
    pad.link(&peer).expect("they were linked before");
    assert_recovered(&player);
    player.reach(gst::State::Null);
});

fault!(buffers_kept_past_the_end_of_all, 3, |round| {
    let clip = Clip::new();
    let kept = Arc::new(Mutex::new(Vec::new()));
    let player = clip.player("");
    let gate = player.pipeline.by_name("gate").expect("a gate");
    let keeper = Arc::clone(&kept);
    let most = 1 + round.number as usize % 2;
    let probe = gst::PadProbeType::BUFFER;
    gate.static_pad("sink")
        .expect("a pad")
        .add_probe(probe, move |_, info| {
            let mut kept = keeper.lock().expect("no thread panicked");
            if let Some(buffer) = info.buffer()
                && kept.len() < most
            {
                kept.push(buffer.clone());
            }
            gst::PadProbeReturn::Ok
        });
    player.start();
    player.wait_until("buffers", |_| {
        kept.lock().expect("no thread panicked").len() == most
    });
    assert_goes_on(&player);
    round.stop(&player);
    let elements = screen::weak(&player.pipeline);
    drop((gate, player));
    assert!(
        elements.iter().all(|element| element.upgrade().is_none()),
        "kept by a buffer"
    );
    let buffers = std::mem::take(&mut *kept.lock().expect("no thread panicked"));
    thread::spawn(move || {
        for buffer in buffers {
            let map = buffer.map_readable().expect("the memory is still there");
            // The console draws again where a framebuffer is.
            let is_console = crate::support::display() == "cirrus";
            assert!(map[0] % 4 == 3 || is_console, "a byte of the clip");
        }
    })
    .join()
    .expect("the buffers can be read and freed");
});

fault!(sinks_swapped_while_frames_flow, 3, |round| {
    let clip = Clip::new();
    let player = clip.player("! identity name=before");
    player.reach(gst::State::Playing);
    for _ in 0..3 {
        let before = player.pipeline.by_name("before").expect("an identity");
        let (blocked, wait) = std::sync::mpsc::channel();
        let pad = before.static_pad("src").expect("a pad");
        let probe = pad.add_probe(gst::PadProbeType::BLOCK_DOWNSTREAM, move |_, _| {
            let _ = blocked.send(());
            gst::PadProbeReturn::Ok
        });
        wait.recv().expect("the stream comes by");
        let gate = player.pipeline.by_name("gate").expect("a gate");
        let mut old = vec![
            gate.clone(),
            player.pipeline.by_name("sink").expect("a sink"),
        ];
        old.extend(
            old[1]
                .static_pad("src")
                .and_then(|pad| pad.peer())
                .and_then(|pad| pad.parent_element()),
        );
        before.unlink(&gate);
        for element in &old {
            // Locked, because otherwise the pipeline would follow with its own state.
            element.set_locked_state(true);
            element.set_state(gst::State::Null).expect("it stops");
            player.pipeline.remove(element).expect("it is there");
        }
        let end = format!("torturegate name=gate ! {}", screen::sink());
        let bin = gst::parse::bin_from_description(&end, false).expect("a bin");
        let mut new: Vec<_> = bin.iterate_elements().into_iter().flatten().collect();
        new.reverse();
        for element in &new {
            bin.remove(element).expect("it is there");
            player.pipeline.add(element).expect("it is free");
        }
        let find = |name: &str| player.pipeline.by_name(name).expect("it was added");
        gst::Element::link_many([&before, &find("gate"), &find("sink")]).expect("they fit");
        if let Some(last) = new
            .iter()
            .find(|element| !["gate", "sink"].contains(&element.name().as_str()))
        {
            find("sink").link(last).expect("they fit");
        }
        for element in new.iter().rev() {
            element.sync_state_with_parent().expect("it starts");
        }
        pad.remove_probe(probe.expect("a probe"));
        let shown = |player: &Player| {
            let sink = player.pipeline.by_name("sink").expect("a sink");
            let stats: gst::Structure = sink.property("stats");
            let count = |name: &str| stats.get::<u64>(name).unwrap_or(0);
            count("shown") + count("passed")
        };
        player.wait_until("frames on the new sink", |player| shown(player) > 3);
        assert_eq!(player.errors(), [""; 0]);
        round.random.nap(20_000);
    }
    player.reach(gst::State::Null);
});

fault!(two_pipelines_on_one_device, 3, |round| {
    let clip = Clip::new();
    let (first, second) = (clip.player(""), clip.player("! queue"));
    first.reach(gst::State::Playing);
    assert_goes_on(&first);
    // The second one shows frames, too, or says that the first one has the device.
    let refused = second.pipeline.set_state(gst::State::Playing).is_err();
    let error = frames_or_error(&second);
    assert!(!refused || error.is_some(), "refused without a word");
    second.reach(gst::State::Null);
    assert_goes_on(&first);
    round.stop(&first);
    // Both at once, from two threads.
    thread::scope(|scope| {
        for player in [&first, &second] {
            scope.spawn(move || {
                let _ = player.pipeline.set_state(gst::State::Playing);
                frames_or_error(player);
                player.reach(gst::State::Null);
            });
        }
    });
    assert_recovered(&first);
    first.reach(gst::State::Null);
});

fault!(one_pool_with_three_consumers, 3, |round| {
    let clip = Clip::new();
    let player = Player::new(&format!(
        "{} ! tee name=t ! queue ! torturegate name=gate ! {} \
         t. ! queue leaky=downstream max-size-buffers=2 ! appsink name=a sync=false max-buffers=2 drop=true \
         t. ! queue leaky=upstream max-size-buffers=1 ! appsink name=b sync=false max-buffers=1 drop=true",
        clip.source(),
        screen::sink()
    ));
    player.reach(gst::State::Playing);
    let pipeline = &player.pipeline;
    thread::scope(|scope| {
        for name in ["a", "b"] {
            let mut random = round.random.clone();
            scope.spawn(move || {
                let consumer = pipeline.by_name(name).expect("an appsink");
                let consumer: gst_app::AppSink = consumer.downcast().expect("an appsink");
                for _ in 0..20 {
                    let limit = gst::ClockTime::from_seconds(60);
                    let sample = consumer.try_pull_sample(limit).expect("a frame");
                    let buffer = sample.buffer().expect("a buffer");
                    let map = buffer.map_readable().expect("it can be read");
                    assert!(
                        map.iter().all(|&byte| byte == map[0]),
                        "bytes of two frames"
                    );
                    random.nap(20_000);
                }
            });
        }
    });
    assert_goes_on(&player);
    round.stop(&player);
});

fault!(a_sink_with_two_buffers, 3, |round| {
    let clip = Clip::new();
    let sink = match crate::support::display().as_str() {
        "vkms" | "none" => screen::sink().to_owned(),
        _ => format!("{} fb-pages=2", screen::sink()),
    };
    let player = Player::new(&format!(
        "{} ! queue max-size-buffers=1 ! torturegate name=gate ! {sink}",
        clip.source()
    ));
    player.reach(gst::State::Playing);
    storm(&player, round, &[flushing_seek, pause_or_play, ask], 8);
    assert_recovered(&player);
    round.stop(&player);
});

fault!(the_end_of_the_stream_again_and_again, 3, |round| {
    let clip = Clip::new();
    let player = Player::new(&format!(
        "{} ! torturegate name=gate ! {}",
        clip.source().replace("loop=true", "start-frame=50"),
        screen::sink()
    ));
    player.start();
    for _ in 0..3 {
        player.wait_for_end();
        player.seek(8, 60);
        let (result, ..) = player.pipeline.state(CLOCK_LIMIT);
        assert!(result.is_ok());
    }
    player.wait_for_end();
    assert!(progress(&player) >= 10, "{}", player.stats());
    round.stop(&player);
});
