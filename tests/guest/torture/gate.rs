// SPDX-License-Identifier: MPL-2.0
//! `torturegate`, an element that passes all on and counts the buffers that downstream accepted.

use std::sync::Once;
use std::sync::atomic::{AtomicU64, Ordering};

use gst::glib;
use gst::prelude::*;
use gst::subclass::prelude::*;

glib::wrapper! {
    pub struct Gate(ObjectSubclass<imp::Gate>) @extends gst::Element, gst::Object;
}

/// How many buffers the element called "gate" has passed on with success.
#[track_caller]
pub fn accepted(pipeline: &gst::Pipeline) -> u64 {
    let gate = pipeline.by_name("gate").expect("a torturegate called gate");
    let gate: Gate = gate.downcast().expect("a torturegate");
    gate.imp().accepted.load(Ordering::Acquire)
}

pub fn register() {
    static REGISTER: Once = Once::new();
    REGISTER.call_once(|| {
        gst::Element::register(None, "torturegate", gst::Rank::NONE, Gate::static_type())
            .expect("the element registers");
    });
}

mod imp {
    use super::*;

    pub struct Gate {
        sink: gst::Pad,
        source: gst::Pad,
        pub accepted: AtomicU64,
    }

    #[glib::object_subclass]
    impl ObjectSubclass for Gate {
        const NAME: &'static str = "TortureGate";
        type Type = super::Gate;
        type ParentType = gst::Element;

        fn with_class(class: &Self::Class) -> Self {
            let template = |name: &str| class.pad_template(name).expect("a template");
            let flags = gst::PadFlags::PROXY_CAPS
                | gst::PadFlags::PROXY_ALLOCATION
                | gst::PadFlags::PROXY_SCHEDULING;
            let sink = gst::Pad::builder_from_template(&template("sink"))
                .chain_function(|_, parent, buffer| {
                    Gate::catch_panic_pad_function(
                        parent,
                        || Err(gst::FlowError::Error),
                        |gate| {
                            let passed = gate.source.push(buffer);
                            if passed.is_ok() {
                                gate.accepted.fetch_add(1, Ordering::AcqRel);
                            }
                            passed
                        },
                    )
                })
                .flags(flags)
                .build();
            let source = gst::Pad::builder_from_template(&template("src"))
                .flags(flags)
                .build();
            Self {
                sink,
                source,
                accepted: AtomicU64::new(0),
            }
        }
    }

    impl ObjectImpl for Gate {
        fn constructed(&self) {
            self.parent_constructed();
            let gate = self.obj();
            gate.add_pad(&self.sink).expect("a pad");
            gate.add_pad(&self.source).expect("a pad");
        }
    }

    impl GstObjectImpl for Gate {}

    impl ElementImpl for Gate {
        fn metadata() -> Option<&'static gst::subclass::ElementMetadata> {
            static METADATA: std::sync::LazyLock<gst::subclass::ElementMetadata> =
                std::sync::LazyLock::new(|| {
                    gst::subclass::ElementMetadata::new(
                        "Gate",
                        "Generic",
                        "Counts the buffers that downstream accepts",
                        "The gst-plugin-physmem developers",
                    )
                });
            Some(&METADATA)
        }

        fn change_state(
            &self,
            transition: gst::StateChange,
        ) -> Result<gst::StateChangeSuccess, gst::StateChangeError> {
            // The sinks count from here on, too.
            if transition == gst::StateChange::NullToReady {
                self.accepted.store(0, Ordering::Release);
            }
            self.parent_change_state(transition)
        }

        fn pad_templates() -> &'static [gst::PadTemplate] {
            static TEMPLATES: std::sync::LazyLock<Vec<gst::PadTemplate>> =
                std::sync::LazyLock::new(|| {
                    let caps = gst::Caps::new_any();
                    let always = gst::PadPresence::Always;
                    [
                        ("sink", gst::PadDirection::Sink),
                        ("src", gst::PadDirection::Src),
                    ]
                    .map(|(name, direction)| {
                        gst::PadTemplate::new(name, direction, always, &caps).expect("a template")
                    })
                    .into()
                });
            &TEMPLATES
        }
    }
}
