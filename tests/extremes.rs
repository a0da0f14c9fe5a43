// SPDX-License-Identifier: MPL-2.0
//! Properties and configurations at their extremes. Each writable property of each of our classes is set to its
//! minimum, its maximum, and to values at random or with no meaning, as GObject's introspection lists them, so that a
//! property added later is covered by itself. The object then starts. It may run or refuse in words. It may not panic,
//! warn, or hang, and it may not take what is huge for granted.

use std::{
    ffi::{CStr, CString},
    sync::{
        Mutex, Once,
        atomic::{AtomicU64, Ordering},
        mpsc::{RecvTimeoutError, channel},
    },
    thread,
    time::Duration,
};

use glib::LogLevel;
use gst::{glib, prelude::*};
use gst_video::prelude::*;
use gstphysmem::{memory::MemoryKind, pool::PhysBufferPool};

/// A deadline against hangs only.
const DEADLINE: Duration = Duration::from_secs(120);

fn init() {
    static INIT: Once = Once::new();
    INIT.call_once(|| {
        gst::init().unwrap();
        gstphysmem::plugin_register_static().unwrap();
        // A case says what was warned of. G_DEBUG=fatal-warnings would end the program without a word of it.
        glib::log_set_always_fatal(glib::LogLevels::LEVEL_ERROR);
        glib::log_set_default_handler(|domain, level, text| {
            if [LogLevel::Error, LogLevel::Critical, LogLevel::Warning].contains(&level) {
                let domain = domain.unwrap_or("?");
                SAID.lock().unwrap().push(format!("{domain}: {text}"));
            }
        });
    });
}

/// Warnings and criticals of GLib.
static SAID: Mutex<Vec<String>> = Mutex::new(Vec::new());
/// What is logged belongs to one test.
static ALONE: Mutex<()> = Mutex::new(());

/// Runs a case, which fails if GLib warns or if the case takes too long.
fn case(name: &str, run: impl FnOnce()) {
    println!("{name}"); // shown if it fails
    let (done, is_done) = channel::<()>();
    let watched = name.to_owned();
    let watch = thread::spawn(move || {
        if is_done.recv_timeout(DEADLINE) == Err(RecvTimeoutError::Timeout) {
            eprintln!("hangs: {watched}");
            std::process::abort();
        }
    });
    run();
    drop(done);
    watch.join().unwrap();
    let said = std::mem::take(&mut *SAID.lock().unwrap());
    assert!(said.is_empty(), "{name}: {said:?}");
}

/// Numbers at random; PHYSMEM_SEED repeats them.
fn random() -> u64 {
    static STATE: AtomicU64 = AtomicU64::new(0);
    static SEED: Once = Once::new();
    SEED.call_once(|| {
        let given = std::env::var("PHYSMEM_SEED").ok();
        let given = given.and_then(|seed| seed.parse().ok());
        let seed = given.unwrap_or_else(|| u64::from(std::process::id()));
        println!("PHYSMEM_SEED={seed}");
        STATE.store(seed, Ordering::Relaxed);
    });
    // The generator splitmix64.
    let step = 0x9e37_79b9_7f4a_7c15;
    let mut z = STATE.fetch_add(step, Ordering::Relaxed).wrapping_add(step);
    z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ z >> 31
}

/// A string as C has it: perhaps not UTF-8, which Rust's strings cannot be.
fn c_string(text: &CStr) -> glib::Value {
    let mut value = glib::Value::for_value_type::<String>();
    // SAFETY: the value is one of strings, and GLib copies the text.
    unsafe {
        use glib::translate::ToGlibPtrMut;
        glib::gobject_ffi::g_value_set_string(value.to_glib_none_mut().0, text.as_ptr());
    }
    value
}

fn strings() -> Vec<glib::Value> {
    let long = |unit: &str| CString::new(unit.repeat(1 << 16)).unwrap();
    let mut values: Vec<_> = [
        c"",
        c" ",
        c"/",
        c"/dev/null",
        c"/proc/self/mem",
        c"%s%n%d",
        c"frame-%05d.raw",
        c"a\nb\x1b[2J\x07",
        c"-1",
        c"18446744073709551616",
        c"\xff\xfe",
        c"/tmp/\xe4\xf6\xfc.yuv",
        c"\xf0\x9f\x8e\x9e \xe2\x80\xae",
    ]
    .map(c_string)
    .into();
    values.extend([
        c_string(&long("x")),
        c_string(&long("1,")),
        c_string(&long("/..")),
    ]);
    values.push(None::<String>.to_value());
    values
}

fn structures() -> Vec<glib::Value> {
    let inner = gst::Structure::new_empty("inner");
    let texts = gst::Structure::builder("texts")
        .field("alpha", "%s%n")
        .field("zpos", "x".repeat(1 << 16))
        .field("rotation", "")
        .build();
    let numbers = gst::Structure::builder("p")
        .field("alpha", i64::MIN)
        .field("rotation", u64::MAX)
        .field("zpos", f64::NAN)
        .field("CRTC_ID", i32::MIN)
        .field("FB_ID", inner.clone())
        .field("x", gst::Array::new([1i32]))
        .build();
    let mut values: Vec<_> = [inner, texts, numbers]
        .map(|structure| structure.to_value())
        .into();
    values.push(None::<gst::Structure>.to_value());
    values
}

/// Minimum, maximum, and values between them.
macro_rules! numbers {
    ($pspec:expr, $($kind:ty: $number:ty),*) => {
        $(if let Some(pspec) = $pspec.downcast_ref::<$kind>() {
            let (least, most) = (pspec.minimum(), pspec.maximum());
            let mut values = vec![least.to_value(), most.to_value()];
            let at_random = [(); 3].map(|()| random() as $number);
            let between = at_random.into_iter().chain([0 as $number, 1 as $number]);
            values.extend(between.filter(|number| (least..=most).contains(number)).map(|number| number.to_value()));
            return Some(values);
        })*
    };
}

/// Values for a property. `None` if none are known for its type.
fn values(pspec: &glib::ParamSpec) -> Option<Vec<glib::Value>> {
    numbers!(pspec, glib::ParamSpecInt: i32, glib::ParamSpecUInt: u32, glib::ParamSpecInt64: i64, glib::ParamSpecUInt64: u64,
        glib::ParamSpecFloat: f32, glib::ParamSpecDouble: f64);
    let of = pspec.value_type();
    if of == glib::Type::BOOL {
        return Some(vec![false.to_value(), true.to_value()]);
    }
    if of == glib::Type::STRING {
        return Some(strings());
    }
    if let Some(class) = glib::EnumClass::with_type(of) {
        return Some(
            class
                .values()
                .iter()
                .filter_map(|value| class.to_value(value.value()))
                .collect(),
        );
    }
    if let Some(class) = glib::FlagsClass::with_type(of) {
        let all = class
            .values()
            .iter()
            .fold(0, |all, value| all | value.value());
        let all = class.builder().set(all).build();
        return Some(all.into_iter().collect());
    }
    if of == gst::Fraction::static_type() {
        let edges = [(0, 1), (1, i32::MAX), (i32::MAX, 1), (1, 1), (100, 1)];
        let fractions = edges.map(|(numer, denom)| gst::Fraction::new(numer, denom).to_value());
        let takes = |value: &glib::Value| !is_changed(pspec, value);
        return Some(fractions.into_iter().filter(takes).collect());
    }
    if of == gst::Array::static_type() {
        let arrays = [
            vec![],
            vec![i32::MAX; 4],
            vec![i32::MIN; 4],
            vec![0; 4],
            vec![-1],
            vec![random() as i32; 4],
            vec![1; 10_000],
        ];
        return Some(
            arrays
                .into_iter()
                .map(|numbers| gst::Array::new(numbers).to_value())
                .collect(),
        );
    }
    if of == gst::Structure::static_type() {
        return Some(structures());
    }
    of.is_a(glib::Type::OBJECT)
        .then(|| vec![glib::Value::from_type(of)])
}

/// Whether the property would change the value, which is then out of its range.
fn is_changed(pspec: &glib::ParamSpec, value: &glib::Value) -> bool {
    use glib::translate::{ToGlibPtr, ToGlibPtrMut};
    let mut copy = value.clone();
    // SAFETY: both live until the call returns, and the value is of the property's type.
    unsafe {
        glib::gobject_ffi::g_param_value_validate(pspec.to_glib_none().0, copy.to_glib_none_mut().0)
            != 0
    }
}

fn shown(value: &glib::Value) -> String {
    // Strings of any bytes.
    if value.type_() == glib::Type::STRING {
        use glib::translate::ToGlibPtr;
        // SAFETY: the value is one of strings, which it keeps while it is borrowed.
        let text = unsafe { glib::gobject_ffi::g_value_get_string(value.to_glib_none().0) };
        // SAFETY: a C string, or NULL.
        let text = (!text.is_null()).then(|| unsafe { CStr::from_ptr(text) });
        return format!("{text:.40?}").chars().take(60).collect();
    }
    if value.type_() == gst::Structure::static_type() || value.type_() == gst::Array::static_type()
    {
        return format!("a {}", value.type_());
    }
    format!("{value:?}").chars().take(60).collect()
}

/// Runs the pipeline to PAUSED and PLAYING for a moment. An error must be in words.
fn run(pipeline: &gst::Pipeline, name: &str) {
    let bus = pipeline.bus().unwrap();
    for state in [gst::State::Ready, gst::State::Paused, gst::State::Playing] {
        if pipeline.set_state(state).is_err() {
            break;
        }
    }
    let ends = [
        gst::MessageType::Error,
        gst::MessageType::Eos,
        gst::MessageType::AsyncDone,
    ];
    if let Some(message) = bus.timed_pop_filtered(gst::ClockTime::from_mseconds(300), &ends) {
        check_error(&message, name);
    }
    pipeline.set_state(gst::State::Null).unwrap();
    while let Some(message) = bus.pop() {
        check_error(&message, name);
    }
}

fn check_error(message: &gst::Message, name: &str) {
    if let gst::MessageView::Error(error) = message.view() {
        let text = error.error().to_string();
        assert!(
            !text.is_empty() && !text.to_lowercase().contains("panic"),
            "{name}: {text}"
        );
        assert!(
            text.len() < 1 << 20,
            "{name}: a text of {} bytes",
            text.len()
        );
    }
}

/// Sets each writable property of an element to each of its values, and runs the element in `pipeline`.
fn element_takes_any_value(factory: &str, pipeline: &str) {
    init();
    let _alone = ALONE
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner());
    let element = gst::ElementFactory::make(factory).build().unwrap();
    let mut without = Vec::new();
    let mut cases = 0;
    for pspec in element.list_properties() {
        if !pspec.flags().contains(glib::ParamFlags::WRITABLE)
            || pspec.flags().contains(glib::ParamFlags::CONSTRUCT_ONLY)
        {
            continue;
        }
        // A name must be unique in its pipeline and so on: it is GStreamer's own.
        if ["name", "parent"].contains(&pspec.name()) {
            continue;
        }
        let Some(values) = values(&pspec) else {
            without.push(pspec.name().to_owned());
            continue;
        };
        for value in values {
            let name = format!("{factory} {}={}", pspec.name(), shown(&value));
            case(&name, || {
                let pipeline = gst::parse::launch(pipeline).unwrap();
                let pipeline = pipeline.downcast::<gst::Pipeline>().unwrap();
                let element = pipeline.by_name("it").unwrap();
                element.set_property_from_value(pspec.name(), &value);
                // Some properties of GStreamer's own classes do not take all that they say.
                if pspec.owner_type() != element.type_() {
                    SAID.lock().unwrap().clear();
                }
                run(&pipeline, &name);
                if pspec.flags().contains(glib::ParamFlags::READABLE) {
                    let _ = element.property_value(pspec.name());
                }
            });
            cases += 1;
        }
    }
    println!("{factory}: {cases} cases");
    assert!(cases > 30, "only {cases} cases");
    assert!(without.is_empty(), "no values are known for {without:?}");
}

#[test]
fn rawvideosrc_runs_or_refuses_in_words_whatever_a_property_is() {
    element_takes_any_value(
        "rawvideosrc",
        "rawvideosrc name=it num-buffers=2 ! fakesink sync=false",
    );
}

#[test]
fn physmemupload_runs_or_refuses_in_words_whatever_a_property_is() {
    element_takes_any_value(
        "physmemupload",
        "videotestsrc num-buffers=2 ! video/x-raw,width=32,height=16 ! physmemupload name=it ! fakesink sync=false",
    );
}

#[test]
fn fbpansink_runs_or_refuses_in_words_whatever_a_property_is() {
    element_takes_any_value(
        "fbpansink",
        "videotestsrc num-buffers=2 ! fbpansink name=it",
    );
}

#[test]
fn kmsflipsink_runs_or_refuses_in_words_whatever_a_property_is() {
    element_takes_any_value(
        "kmsflipsink",
        "videotestsrc num-buffers=2 ! kmsflipsink name=it",
    );
}

/// What a pool that was not started says of the reason.
fn start(pool: &PhysBufferPool, config: gst::BufferPoolConfig, name: &str) {
    let started = pool.set_config(config).is_ok() && pool.set_active(true).is_ok();
    if started {
        let buffer = pool.acquire_buffer(Some(&dont_wait())).unwrap();
        assert_eq!(
            buffer.size() as u64,
            pool.property::<u64>("buffer-size"),
            "{name}"
        );
        drop(buffer);
        pool.set_active(false).unwrap();
    } else {
        let reason = pool.last_error().unwrap_or_default();
        assert!(!reason.is_empty(), "{name}: refused without a word");
    }
}

fn dont_wait() -> gst::BufferPoolAcquireParams {
    gst::BufferPoolAcquireParams::with_flags(gst::BufferPoolAcquireFlags::DONTWAIT)
}

#[test]
fn a_pool_starts_or_says_why_not_whatever_a_property_is() {
    init();
    let _alone = ALONE
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner());
    let model = PhysBufferPool::builder().kind(MemoryKind::Normal).build();
    for pspec in model.list_properties() {
        if !pspec.flags().contains(glib::ParamFlags::WRITABLE)
            || ["name", "parent"].contains(&pspec.name())
        {
            continue;
        }
        for value in values(&pspec).expect("values for each property") {
            let name = format!("pool {}={}", pspec.name(), shown(&value));
            case(&name, || {
                let pool = glib::Object::with_mut_values(
                    model.type_(),
                    &mut [(pspec.name(), value.clone())],
                );
                let pool = pool.downcast::<PhysBufferPool>().unwrap();
                let mut config = pool.config();
                config.set_params(None, 4096, 1, 2);
                start(&pool, config, &name);
            });
        }
    }
}

#[test]
fn a_pool_starts_or_says_why_not_whatever_its_configuration_is() {
    init();
    let _alone = ALONE
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner());
    let caps = |width: i32, height: i32| {
        gst::Caps::builder("video/x-raw")
            .field("format", "NV12")
            .field("width", width)
            .field("height", height)
            .build()
    };
    let all_caps = [
        None,
        Some(caps(64, 32)),
        Some(caps(1, 1)),
        Some(caps(0, 0)),
        Some(caps(-1, 32)),
        Some(caps(i32::MAX, i32::MAX)),
        Some(caps(32_767, 32_767)),
        Some(gst::Caps::builder("video/x-raw").build()),
        Some(
            gst::Caps::builder("audio/x-raw")
                .field("rate", i32::MAX)
                .build(),
        ),
    ];
    let edges = [0, 1, 3, 4096, u32::MAX / 2, u32::MAX - 1, u32::MAX];
    for _ in 0..60 {
        let any = |numbers: &[u32]| match random() % 8 {
            0 => random() as u32,
            n => numbers[n as usize % numbers.len()],
        };
        let caps = all_caps[random() as usize % all_caps.len()].clone();
        // GStreamer itself insists that the minimum is not above the maximum.
        let (size, min, max) = (
            any(&edges),
            any(&[0, 1, 2, u32::MAX]),
            any(&[0, 1, 2, u32::MAX]),
        );
        let max = if max < min { 0 } else { max };
        let paddings = [(); 4].map(|()| any(&[0, 0, 1, 16, u32::MAX]));
        let aligns = [(); 4].map(|()| any(&[0, 0, 15, 63, 64, u32::MAX]));
        let options = random() % 4;
        let align = [0, 1, 15, 4095, usize::MAX >> 1, usize::MAX][random() as usize % 6];
        let [prefix, padding] =
            [(); 2].map(|()| [0, 0, 1, 4096, usize::MAX][random() as usize % 5]);
        let name = format!(
            "config {caps:?} size={size} min={min} max={max} padding={paddings:?} align={aligns:?} options={options} \
             params={align},{prefix},{padding}"
        );
        case(&name, || {
            let pool = PhysBufferPool::builder().kind(MemoryKind::Normal).build();
            let mut config = pool.config();
            config.set_params(caps.as_ref(), size, min, max);
            if options > 0 {
                config.add_option(gst_video::BUFFER_POOL_OPTION_VIDEO_META);
            }
            if options > 1 {
                config.add_option(gst_video::BUFFER_POOL_OPTION_VIDEO_ALIGNMENT);
                let [top, bottom, left, right] = paddings;
                config.set_video_alignment(&gst_video::VideoAlignment::new(
                    top, bottom, left, right, &aligns,
                ));
            }
            // GStreamer itself insists that an alignment is a power of two less 1.
            let params =
                gst::AllocationParams::new(gst::MemoryFlags::empty(), align, prefix, padding);
            config.set_allocator(None::<&gst::Allocator>, Some(&params));
            // Memory of gigabytes would be there for some machines and not for others.
            if u64::from(size).saturating_mul(min.into()) < 64 << 20 || min == u32::MAX {
                start(&pool, config, &name);
            } else if pool.set_config(config).is_err() {
                assert!(pool.last_error().is_some(), "{name}");
            }
        });
    }
}

#[test]
fn an_allocator_gives_memory_or_none_whatever_it_is_asked_for() {
    init();
    let _alone = ALONE
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner());
    for allocator in [
        "PhysMemCma",
        "PhysMemSystem",
        "PhysMemUdmabuf",
        "PhysMemHugepage",
        "PhysMemNormal",
        "PhysMemAuto",
        "PhysMemRegion",
    ] {
        let found = gst::Allocator::find(Some(allocator)).unwrap();
        for size in [
            0,
            1,
            4095,
            4096,
            1 << 46,
            isize::MAX as usize,
            usize::MAX - 4095,
            usize::MAX,
        ] {
            for (align, prefix, padding) in [
                (0, 0, 0),
                (4095, 0, 0),
                ((1 << 21) - 1, 0, 0),
                (usize::MAX >> 1, 0, 0),
                (0, usize::MAX, 1),
                (0, 1, usize::MAX),
            ] {
                let name = format!(
                    "{allocator} size={size} align={align} prefix={prefix} padding={padding}"
                );
                case(&name, || {
                    let params = gst::AllocationParams::new(
                        gst::MemoryFlags::empty(),
                        align,
                        prefix,
                        padding,
                    );
                    if let Ok(memory) = found.alloc(size, Some(&params)) {
                        assert!(
                            size > 0 && memory.size() == size && size < 1 << 40,
                            "{name}"
                        );
                        assert_eq!(memory.map_readable().unwrap().len(), size, "{name}");
                    }
                });
            }
        }
    }
}
