// SPDX-License-Identifier: MPL-2.0
//! The pool's signals: the whole Rust API again for languages without a header.
//!
//! All but `validating` are action signals, emitted by the application:
//!
//! | signal | arguments | result |
//! |---|---|---|
//! | `describe` | GstBuffer | GstStructure, or NULL for a buffer without the meta |
//! | `dump` | | text for people |
//! | `acquire-free` | gint64 timeout in ns, 0 not at all, -1 for ever | GstBuffer or NULL |
//! | `submit-filled` | GstBuffer | gboolean |
//! | `acquire-filled` | gint64 timeout | GstBuffer or NULL |
//! | `release-filled` | GstBuffer | gboolean |
//! | `buffer-by-id` | guint | GstBuffer or NULL |
//! | `validate` | guint id | gboolean |
//! | `validate-all` | | gboolean |
//! | `export-dmabuf` | guint id | a new file descriptor, or -1 |
//!
//! The property `last-error` says why the last of them failed that did. Threads that share
//! the pool share it too: C has functions with a GError, `crate::ffi`.
//!
//! `validating` (guint id) is emitted by `validate`: a handler that returns
//! FALSE declares the buffer invalid.

use gst::{
    glib::{self, subclass::Signal},
    prelude::*,
    subclass::prelude::ObjectSubclassIsExt,
};

use super::{PhysBufferPool, PoolError, imp::wait_from_ns};

pub(super) fn signals() -> Vec<Signal> {
    vec![
        action("describe", &[gst::Buffer::static_type()])
            .return_type::<Option<gst::Structure>>()
            .class_handler(|args| {
                let buffer = args[1].get::<gst::Buffer>().ok()?;
                Some(PhysBufferPool::describe(&buffer).to_value())
            })
            .build(),
        action("dump", &[])
            .return_type::<String>()
            .class_handler(|args| Some(pool(args)?.dump().to_value()))
            .build(),
        action("acquire-free", &[i64::static_type()])
            .return_type::<Option<gst::Buffer>>()
            .class_handler(|args| {
                let wait = wait_from_ns(args[1].get().ok()?);
                let pool = pool(args)?;
                Some(told(&pool, pool.acquire_free(wait)).to_value())
            })
            .build(),
        action("submit-filled", &[gst::Buffer::static_type()])
            .return_type::<bool>()
            .class_handler(|args| {
                let buffer = args[1].get::<gst::Buffer>().ok()?;
                let pool = pool(args)?;
                Some(told(&pool, pool.submit_filled(buffer)).is_some().to_value())
            })
            .build(),
        action("acquire-filled", &[i64::static_type()])
            .return_type::<Option<gst::Buffer>>()
            .class_handler(|args| {
                let wait = wait_from_ns(args[1].get().ok()?);
                let pool = pool(args)?;
                Some(told(&pool, pool.acquire_filled(wait)).to_value())
            })
            .build(),
        action("release-filled", &[gst::Buffer::static_type()])
            .return_type::<bool>()
            .class_handler(|args| {
                let buffer = args[1].get::<gst::Buffer>().ok()?;
                let pool = pool(args)?;
                Some(
                    told(&pool, pool.release_filled(buffer))
                        .is_some()
                        .to_value(),
                )
            })
            .build(),
        action("buffer-by-id", &[u32::static_type()])
            .return_type::<Option<gst::Buffer>>()
            .class_handler(|args| {
                let id = args[1].get().ok()?;
                Some(pool(args)?.buffer_by_id(id).to_value())
            })
            .build(),
        action("validate", &[u32::static_type()])
            .return_type::<bool>()
            .class_handler(|args| {
                let id = args[1].get().ok()?;
                Some(pool(args)?.validate(id).to_value())
            })
            .build(),
        action("validate-all", &[])
            .return_type::<bool>()
            .class_handler(|args| Some(pool(args)?.validate_all().to_value()))
            .build(),
        action("export-dmabuf", &[u32::static_type()])
            .return_type::<i32>()
            .class_handler(|args| {
                use std::os::fd::IntoRawFd;
                let id = args[1].get().ok()?;
                let pool = pool(args)?;
                let fd = told(&pool, pool.export_dmabuf(id));
                Some(fd.map_or(-1, IntoRawFd::into_raw_fd).to_value())
            })
            .build(),
        Signal::builder("validating")
            .param_types([u32::static_type()])
            .return_type::<bool>()
            .run_last()
            .class_handler(|_| Some(true.to_value()))
            .accumulator(|_hint, _acc, handler| {
                // The first handler that says no has the last word.
                match handler.get::<bool>() {
                    Ok(false) => std::ops::ControlFlow::Break(handler.clone()),
                    _ => std::ops::ControlFlow::Continue(handler.clone()),
                }
            })
            .build(),
    ]
}

fn action(name: &str, params: &[glib::Type]) -> glib::subclass::signal::SignalBuilder {
    Signal::builder(name)
        .param_types(params.iter().copied())
        .run_last()
        .action()
}

fn pool(args: &[glib::Value]) -> Option<PhysBufferPool> {
    args[0].get().ok()
}

/// The result, whose error goes to the property `last-error`.
fn told<T>(pool: &PhysBufferPool, result: Result<T, PoolError>) -> Option<T> {
    result
        .inspect_err(|refusal| pool.imp().remember_refusal(refusal))
        .ok()
}
