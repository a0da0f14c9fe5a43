// SPDX-License-Identifier: MPL-2.0
//! An application that fills buffers of known physical address, in Rust:
//!
//! ```text
//! cargo run --example app                # or: --example app -- fbpansink
//! ```
//!
//! It takes the pool that the sink proposes, so that frames are written into memory that
//! the sink shows without a copy. If the sink proposes none, it makes a pool. It first uses
//! the pool without a pipeline (the four verbs, the meta), then feeds 30 frames through appsrc.

use std::{error::Error, time::Duration};

use gst::prelude::*;
use gst_video::prelude::*;
use gstphysmem::{
    memory::MemoryKind,
    meta::PhysMemMeta,
    pool::{PhysBufferPool, Wait},
};

const FRAMES: u64 = 30;
const TIMEOUT: Wait = Wait::AtMost(Duration::from_secs(30));

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Plays into the sink that `sink_description` makes, and returns the sink's statistics.
pub fn run(sink_description: &str) -> Result<gst::Structure> {
    let pipeline =
        gst::parse::launch(&format!("appsrc name=src format=time ! {sink_description}"))?
            .downcast::<gst::Pipeline>()
            .map_err(|_| "not a pipeline")?;
    let played = play(&pipeline);
    pipeline.set_state(gst::State::Null)?;
    played
}

fn play(pipeline: &gst::Pipeline) -> Result<gst::Structure> {
    let appsrc = pipeline
        .by_name("src")
        .and_downcast::<gst_app::AppSrc>()
        .ok_or("no appsrc")?;
    let sink_pad = appsrc
        .static_pad("src")
        .and_then(|pad| pad.peer())
        .ok_or("appsrc is not linked")?;
    let sink = sink_pad.parent_element().ok_or("no sink")?;

    // In READY the sink has its device open and knows which caps it takes.
    pipeline.set_state(gst::State::Ready)?;
    let info = choose_format(&sink_pad)?;
    appsrc.set_caps(Some(&info.to_caps()?));
    let pool = match ask_for_pool(&sink_pad, &info)? {
        Some(pool) => {
            println!("frames are written into the sink's pool");
            pool
        }
        None => {
            println!("frames are written into the application's pool");
            // Auto takes the best kind that works here, contiguous memory with a dma-buf first.
            let pool = PhysBufferPool::builder().kind(MemoryKind::Auto).build();
            activate(&pool, &info, info.size() as u32, 3, 4)?;
            pool
        }
    };
    four_verbs(&pool, &info)?;

    pipeline.set_state(gst::State::Playing)?;
    feed(&appsrc, &pool, &info)?;
    let bus = pipeline.bus().ok_or("no bus")?;
    let ends = [gst::MessageType::Eos, gst::MessageType::Error];
    let message = bus.timed_pop_filtered(gst::ClockTime::from_seconds(60), &ends);
    match message.as_ref().map(|message| message.view()) {
        Some(gst::MessageView::Eos(_)) => {}
        Some(gst::MessageView::Error(error)) => return Err(error.error().into()),
        _ => return Err("it plays and plays".into()),
    }
    let stats = sink.property::<gst::Structure>("stats");
    println!("sink: {stats}");
    println!("{}", pool.dump());
    pool.set_active(false)?;
    Ok(stats)
}

/// A format that the sink takes, at a size that is small enough for any screen.
fn choose_format(sink_pad: &gst::Pad) -> Result<gst_video::VideoInfo> {
    let ours = gst_video::VideoCapsBuilder::new()
        .width(320)
        .height(240)
        .framerate(gst::Fraction::new(30, 1))
        .build();
    let mut caps = sink_pad.query_caps(Some(&ours));
    if caps.is_empty() {
        return Err("the sink takes no format of ours".into());
    }
    caps.fixate();
    Ok(gst_video::VideoInfo::from_caps(&caps)?)
}

/// The sink's pool, if it proposes a `PhysBufferPool`. appsrc itself does not ask.
fn ask_for_pool(
    sink_pad: &gst::Pad,
    info: &gst_video::VideoInfo,
) -> Result<Option<PhysBufferPool>> {
    let mut query = gst::query::Allocation::new(Some(&info.to_caps()?), true);
    if !sink_pad.query(&mut query) {
        return Ok(None);
    }
    let Some((Some(pool), size, min, max)) = query.allocation_pools().next() else {
        return Ok(None);
    };
    let Ok(pool) = pool.downcast::<PhysBufferPool>() else {
        return Ok(None);
    };
    activate(&pool, info, size, min, max)?;
    Ok(Some(pool))
}

fn activate(
    pool: &PhysBufferPool,
    info: &gst_video::VideoInfo,
    size: u32,
    min: u32,
    max: u32,
) -> Result<()> {
    let mut config = pool.config();
    config.set_params(Some(&info.to_caps()?), size, min, max);
    // The sink's rows may be padded: GstVideoMeta gives their stride.
    config.add_option(gst_video::BUFFER_POOL_OPTION_VIDEO_META);
    pool.set_config(config)?;
    Ok(pool.set_active(true)?)
}

/// Acts as the producer and the consumer of one buffer, without a pipeline.
fn four_verbs(pool: &PhysBufferPool, info: &gst_video::VideoInfo) -> Result<()> {
    let mut buffer = pool.acquire_free(TIMEOUT)?;
    let meta = buffer.meta::<PhysMemMeta>().ok_or("no meta")?;
    match meta.address() {
        Ok(address) => println!(
            "buffer {}: {} bytes at {}, {} extents, last byte {} ({})",
            meta.id(),
            meta.size_bytes(),
            address.first(),
            address.extents().len(),
            address.last_byte(),
            address.source(),
        ),
        Err(reason) => println!("buffer {}: address unknown: {reason}", meta.id()),
    }
    let buffer_mut = buffer.get_mut().ok_or("somebody else holds the buffer")?;
    draw(buffer_mut, info, 0x5a)?;
    pool.submit_filled(buffer)?;

    let buffer = pool.acquire_filled(TIMEOUT)?;
    let frame = gst_video::VideoFrameRef::from_buffer_ref_readable(&buffer, info)?;
    if frame.plane_data(0)?[0] != 0x5a {
        return Err("these are not the producer's bytes".into());
    }
    drop(frame);
    // A second submission is refused and changes nothing.
    match pool.submit_filled(buffer.clone()) {
        Ok(()) => return Err("a buffer was submitted twice".into()),
        Err(refusal) => println!("refused: {refusal}"),
    }
    pool.release_filled(buffer)?;
    println!("four verbs: ok");
    Ok(())
}

/// Pushes `FRAMES` frames. `acquire_free` waits while the sink holds all buffers.
fn feed(
    appsrc: &gst_app::AppSrc,
    pool: &PhysBufferPool,
    info: &gst_video::VideoInfo,
) -> Result<()> {
    for n in 0..FRAMES {
        let Ok(mut buffer) = pool.acquire_free(TIMEOUT) else {
            break; // the error is on the bus
        };
        let buffer_mut = buffer.get_mut().ok_or("somebody else holds the buffer")?;
        draw(buffer_mut, info, (n * 255 / FRAMES) as u8)?;
        buffer_mut.set_pts(n * gst::ClockTime::SECOND / 30);
        buffer_mut.set_duration(gst::ClockTime::SECOND / 30);
        if appsrc.push_buffer(buffer).is_err() {
            break;
        }
    }
    // This fails only after the sink has failed; the error is on the bus.
    let _ = appsrc.end_of_stream();
    Ok(())
}

/// Fills the frame with grey, in any format, at the strides of the buffer's GstVideoMeta.
/// The bytes between two rows of a sink's memory belong to the rest of the screen.
fn draw(buffer: &mut gst::BufferRef, info: &gst_video::VideoInfo, grey: u8) -> Result<()> {
    let mut frame = gst_video::VideoFrameRef::from_buffer_ref_writable(buffer, info)?;
    for component in 0..frame.n_components() {
        let plane = frame.comp_plane(component);
        let stride = frame.plane_stride()[plane as usize] as usize;
        let row_bytes =
            frame.comp_width(component) as usize * frame.comp_pstride(component) as usize;
        let rows = frame.comp_height(component) as usize;
        let data = frame.plane_data_mut(plane)?;
        for row in data.chunks_mut(stride).take(rows) {
            row[..row_bytes].fill(grey);
        }
    }
    Ok(())
}

#[allow(dead_code)] // tests call `run`
fn main() -> Result<()> {
    gst::init()?;
    // A program that links the library needs no installed plugin.
    gstphysmem::plugin_register_static()?;
    run(&std::env::args().nth(1).unwrap_or("fakesink".into()))?;
    Ok(())
}
