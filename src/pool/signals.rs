// SPDX-License-Identifier: MPL-2.0
//! The pool's signals, which offer the Rust API to languages that reach it only through
//! GObject. [`PhysBufferPool`] documents them.

use std::{fmt::Display, os::fd::IntoRawFd};

use gst::{
    glib::{self, subclass::Signal, value::FromValue},
    prelude::*,
    subclass::prelude::ObjectSubclassIsExt,
};

use super::{
    PhysBufferPool, Wait,
    external::{handle_of_dmabuf, handle_of_pieces},
};
use crate::memory::{Extent, PhysAddr};

pub(super) fn signals() -> Vec<Signal> {
    let (buffer, timeout, id) = (
        [gst::Buffer::static_type()],
        [i64::static_type()],
        [u32::static_type()],
    );
    vec![
        action("describe", &buffer, |pool, params| {
            let buffer = told(pool, given(params))?;
            let description = PhysBufferPool::describe(&buffer);
            told(
                pool,
                description.ok_or("the buffer has no GstPhysMemMeta: it is from no such pool"),
            )
        }),
        action("dump", &[], |pool, _| pool.dump()),
        action("acquire-free", &timeout, |pool, params| {
            told(pool, pool.acquire_free(wait(params)))
        }),
        action("submit-filled", &buffer, |pool, params| {
            let buffer = told(pool, given(params));
            buffer.is_some_and(|buffer| told(pool, pool.submit_filled(buffer)).is_some())
        }),
        action("acquire-filled", &timeout, |pool, params| {
            told(pool, pool.acquire_filled(wait(params)))
        }),
        action("release-filled", &buffer, |pool, params| {
            let buffer = told(pool, given(params));
            buffer.is_some_and(|buffer| told(pool, pool.release_filled(buffer)).is_some())
        }),
        action("buffer-by-id", &id, |pool, params| {
            let id = param(params);
            told(pool, pool.buffer_by_id(id).ok_or_else(|| unknown(id)))
        }),
        action(
            "add-memory",
            &[
                u64::static_type(),
                u64::static_type(),
                Option::<glib::Variant>::static_type(),
                i32::static_type(),
                Option::<glib::Object>::static_type(),
            ],
            |pool, params| told(pool, add_memory(pool, params)).is_some(),
        ),
        action("add-dmabuf", &[i32::static_type()], |pool, params| {
            told(pool, add_dmabuf(pool, param(params))).is_some()
        }),
        action("validate", &id, |pool, params| {
            let id = param(params);
            let is_valid = pool.validate(id);
            told(pool, is_valid.then_some(()).ok_or_else(|| unknown(id))).is_some()
        }),
        action("validate-all", &[], |pool, _| pool.validate_all()),
        action("export-dmabuf", &id, |pool, params| {
            told(pool, pool.export_dmabuf(param(params))).map_or(-1, IntoRawFd::into_raw_fd)
        }),
        Signal::builder("validating")
            .param_types([u32::static_type()])
            .return_type::<bool>()
            .run_last()
            .class_handler(|_| Some(true.to_value()))
            .accumulator(|_hint, _acc, handler| {
                // The first handler that returns false decides.
                match handler.get::<bool>() {
                    Ok(false) => std::ops::ControlFlow::Break(handler.clone()),
                    _ => std::ops::ControlFlow::Continue(handler.clone()),
                }
            })
            .build(),
    ]
}

fn unknown(id: u32) -> String {
    format!("the pool has no buffer {id} in use, or it is not valid")
}

/// Keeps what owns a block alive, and is dropped by whichever thread uses the block last.
struct OwnerObject(#[allow(dead_code)] Option<glib::Object>);
// SAFETY: GObject's reference counts are atomic, and the emitter of `add-memory` promises an object that any
// thread may finalize.
unsafe impl Send for OwnerObject {}

/// Adds a block of memory that the application describes by numbers.
fn add_memory(pool: &PhysBufferPool, params: &[glib::Value]) -> Result<(), String> {
    const WRONG: &str = "add-memory takes data, size, extents, dmabuf-fd and owner";
    let [data, size, extents, dmabuf_fd, owner] = params else {
        return Err(WRONG.to_owned());
    };
    let size_t = |value: &glib::Value| {
        let number = value.get::<u64>().map_err(|_| WRONG)?;
        usize::try_from(number).map_err(|_| "the data or size is beyond this machine")
    };
    let extents = match extents.get::<Option<glib::Variant>>() {
        Ok(None) => None,
        Ok(Some(pairs)) => {
            let pairs = pairs.get::<Vec<(u64, u64)>>();
            let pairs = pairs.ok_or("the extents are no a(tt): pairs of address and size")?;
            let extents = pairs.into_iter().map(|(phys, len_bytes)| Extent {
                phys: PhysAddr(phys),
                len_bytes,
            });
            Some(extents.collect())
        }
        Err(_) => return Err(WRONG.to_owned()),
    };
    let dmabuf_fd = dmabuf_fd.get::<i32>().map_err(|_| WRONG)?;
    let owner = OwnerObject(owner.get::<Option<glib::Object>>().map_err(|_| WRONG)?);
    let deleter = move || drop(owner);
    let data = std::ptr::with_exposed_provenance_mut(size_t(data)?);
    let size = size_t(size)?;
    // SAFETY: the emitter promises, as the documentation of the signal demands, that the block stays mapped
    // as long as `owner` lives, and without an owner for ever.
    let handle = unsafe { handle_of_pieces(data, size, extents, dmabuf_fd, deleter) }?;
    pool.add_handle(handle)
        .map_err(|refusal| refusal.to_string())
}

/// Adds a whole dma-buf, which the pool maps.
fn add_dmabuf(pool: &PhysBufferPool, dmabuf_fd: i32) -> Result<(), String> {
    let handle = handle_of_dmabuf(dmabuf_fd)?;
    pool.add_handle(handle)
        .map_err(|refusal| refusal.to_string())
}

/// An action signal. Its class handler always returns a value, because the process ends if a
/// class handler returns none for a signal that has a result.
fn action<R: Into<glib::Value> + StaticType>(
    name: &str,
    params: &[glib::Type],
    act: impl Fn(&PhysBufferPool, &[glib::Value]) -> R + Send + Sync + 'static,
) -> Signal {
    Signal::builder(name)
        .param_types(params.iter().copied())
        .return_type::<R>()
        .run_last()
        .action()
        .class_handler(move |args| {
            let done = args.split_first().and_then(|(pool, params)| {
                let pool = pool.get::<PhysBufferPool>().ok()?;
                Some(act(&pool, params).into())
            });
            Some(done.unwrap_or_else(|| glib::Value::from_type(R::static_type())))
        })
        .build()
}

/// The first parameter of a signal. GObject has checked its type.
fn param<'v, T: Default + FromValue<'v>>(params: &'v [glib::Value]) -> T
where
    T::Checker: glib::value::ValueTypeChecker,
{
    let param = params.first().and_then(|param| param.get().ok());
    param.unwrap_or_default()
}

fn wait(params: &[glib::Value]) -> Wait {
    Wait::from_ns(param(params))
}

/// The buffer. An error if it is NULL, because the caller passed on a failed acquire.
fn given(params: &[glib::Value]) -> Result<gst::Buffer, &'static str> {
    param::<Option<gst::Buffer>>(params)
        .ok_or("no buffer was given, but NULL: see whether it was acquired")
}

/// The result. An error is stored for the property `last-error`.
fn told<T>(pool: &PhysBufferPool, result: Result<T, impl Display>) -> Option<T> {
    result
        .inspect_err(|refusal| pool.imp().remember_refusal(refusal))
        .ok()
}
