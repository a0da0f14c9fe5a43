// SPDX-License-Identifier: MPL-2.0
//! The elements and pools of this plugin in the process, and their last numbers.
//!
//! Weak references only: the tracer keeps nothing alive. A pool is used only while it is active: before that
//! its slots may not be set yet, which the first look at them would prevent, and afterwards its buffers
//! are gone.
//!
//! No lock but `reading` is held while a property is read, and no thread that has a lock of an element
//! or a pool takes `reading`.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use gst::{glib, prelude::*};

use super::protocol::{Element, Pool, Snapshot, VERSION};
use super::{CAT, reading, summary};
use crate::locks::Mutex;
use crate::meta::PhysMemMeta;
use crate::pool::PhysBufferPool;
use crate::sys::clock::monotonic_ns;

/// How many elements, and how many pools, are kept in mind. Beyond that, those that are gone are
/// forgotten.
const LIMIT: usize = 256;

#[derive(Default)]
pub struct Watched {
    elements: Mutex<Vec<Arc<Entry<gst::Element, Element>>>>,
    pools: Mutex<Vec<Arc<Entry<gst::BufferPool, Pool>>>>,
    /// By the id of the buffer.
    holders: Mutex<HashMap<u32, Holder>>,
    /// One thread reads at a time, so that no older numbers replace newer ones.
    reading: Mutex<()>,
}

struct Entry<T: glib::object::ObjectType, N> {
    object: glib::WeakRef<T>,
    numbers: Mutex<N>,
}

/// The way of a buffer since it was acquired.
struct Holder {
    /// How often the buffer had been acquired.
    acquired: u64,
    /// The element that sent it first.
    from: String,
    /// The element that it went into last.
    at: String,
}

/// When the numbers are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// In turn, and counted for the means over time.
    InTurn,
    /// At an event.
    Event,
}

/// Adds an entry and forgets objects that are gone where there are too many.
fn add<T: glib::object::ObjectType, N>(
    entries: &mut Vec<Arc<Entry<T, N>>>,
    object: &T,
    numbers: N,
) {
    if entries.len() >= LIMIT {
        entries.retain(|entry| entry.object.upgrade().is_some());
    }
    entries.push(Arc::new(Entry {
        object: object.downgrade(),
        numbers: Mutex::new(numbers),
    }));
}

impl Watched {
    /// Watches an element of this plugin. Returns whether the element is one.
    pub fn element(&self, element: &gst::Element) -> bool {
        let Some(factory) = reading::factory_of(element.type_().name()) else {
            return false;
        };
        let mut elements = self.elements.lock();
        let is_known = |entry: &Arc<Entry<_, _>>| entry.object.upgrade().as_ref() == Some(element);
        if !elements.iter().any(is_known) {
            let numbers = Element {
                name: element.name().into(),
                factory: factory.into(),
                ..Element::default()
            };
            add(&mut elements, element, numbers);
        }
        true
    }

    /// Watches a pool of this plugin, which may still be under construction. Returns whether the object is
    /// one.
    pub fn pool(&self, object: &gst::Object) -> bool {
        let pool = object.downcast_ref::<gst::BufferPool>();
        let Some(pool) = pool.filter(|pool| reading::is_pool(pool.type_().name())) else {
            return false;
        };
        add(&mut self.pools.lock(), pool, Pool::default());
        true
    }

    /// Notes which element a buffer goes into.
    pub fn pushed(&self, pad: &gst::Pad, buffer: &gst::BufferRef) {
        let Some(id) = buffer.meta::<PhysMemMeta>().map(|meta| meta.id()) else {
            return;
        };
        let pools = self.pools.lock().clone();
        let acquired = pools.iter().find_map(|entry| {
            let active = entry.object.upgrade().filter(|pool| pool.is_active())?;
            let pool = active.downcast::<PhysBufferPool>().ok()?;
            pool.times_acquired(buffer)
        });
        let at = pad.peer().and_then(|peer| peer.parent_element());
        let (Some(acquired), Some(at)) = (acquired, at) else {
            return;
        };
        let at = String::from(at.name());
        let mut holders = self.holders.lock();
        match holders.get_mut(&id) {
            Some(holder) if holder.acquired == acquired => holder.at = at,
            _ => {
                let from = pad.parent_element();
                let from = from.map_or_else(String::new, |element| element.name().into());
                let holder = Holder { acquired, from, at };
                holders.insert(id, holder);
            }
        }
    }

    /// Reads all numbers.
    pub fn read(&self, moment: Moment) {
        let _reading = self.reading.lock();
        let elements = self.elements.lock().clone();
        for entry in elements {
            match entry.object.upgrade() {
                Some(element) => read_element(&element, &entry.numbers),
                None => entry.numbers.lock().is_running = false,
            }
        }
        let pools = self.pools.lock().clone();
        for entry in &pools {
            match entry.object.upgrade().filter(|pool| pool.is_active()) {
                Some(pool) => self.read_pool(&pool, &entry.numbers, moment),
                None => entry.numbers.lock().is_active = false,
            }
        }
        let known: HashSet<u32> = pools
            .iter()
            .flat_map(|entry| {
                entry
                    .numbers
                    .lock()
                    .buffers
                    .iter()
                    .map(|b| b.id)
                    .collect::<Vec<_>>()
            })
            .collect();
        self.holders.lock().retain(|id, _| known.contains(id));
    }

    fn read_pool(&self, pool: &gst::BufferPool, numbers: &Mutex<Pool>, moment: Moment) {
        let Some(stats) = pool.property::<Option<gst::Structure>>("stats") else {
            return;
        };
        let (known_total, mut filled_by, mut in_use) = {
            let known = numbers.lock();
            (known.total, known.filled_by.clone(), known.in_use)
        };
        let holders = self.holders.lock();
        let mut read = reading::pool(&stats, |id, acquired| {
            let holder = holders
                .get(&id)
                .filter(|holder| holder.acquired == acquired);
            holder.map(|holder| holder.at.clone())
        });
        if read.total == 0 && known_total > 0 {
            // It was deactivated meanwhile, and has given up its buffers.
            numbers.lock().is_active = false;
            return;
        }
        if filled_by.is_none() {
            let holder = read
                .buffers
                .iter()
                .find_map(|buffer| holders.get(&buffer.id));
            filled_by = holder.map(|holder| holder.from.clone());
        }
        drop(holders);
        // A buffer that was acquired and not sent yet is with the element that fills the buffers.
        for buffer in &mut read.buffers {
            if buffer.state == "locked-by-producer" && buffer.holder.is_none() {
                buffer.holder.clone_from(&filled_by);
            }
        }
        if moment == Moment::InTurn {
            in_use.add(read.total - read.free.min(read.total));
            let name = pool.name();
            gst::trace!(CAT, "{}", summary::sample_record(&name, &read));
        }
        *numbers.lock() = Pool {
            name: pool.name().into(),
            is_active: true,
            filled_by,
            in_use,
            ..read
        };
    }

    /// The numbers that were read last.
    pub fn snapshot(&self) -> Snapshot {
        let program = std::env::current_exe().ok();
        let program = program.and_then(|path| path.file_name().map(|n| n.to_string_lossy().into()));
        let elements = self.elements.lock().clone();
        let pools = self.pools.lock().clone();
        let pools = pools.iter().map(|entry| entry.numbers.lock().clone());
        Snapshot {
            version: VERSION,
            pid: std::process::id(),
            program: program.unwrap_or_default(),
            time_ns: monotonic_ns(),
            elements: elements
                .iter()
                .map(|entry| entry.numbers.lock().clone())
                .collect(),
            // A pool that never was active has no name here and says nothing.
            pools: pools.filter(|pool| !pool.name.is_empty()).collect(),
        }
    }
}

fn read_element(element: &gst::Element, numbers: &Mutex<Element>) {
    let Some(stats) = element.property::<Option<gst::Structure>>("stats") else {
        return;
    };
    let factory = numbers.lock().factory.clone();
    let read = reading::element(&factory, &stats);
    *numbers.lock() = Element {
        name: element.name().into(),
        is_running: element.current_state() > gst::State::Ready,
        ..read
    };
}
