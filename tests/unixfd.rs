// SPDX-License-Identifier: MPL-2.0
//! Buffers of our pool through unixfdsink and unixfdsrc of GStreamer 1.24 or newer. The meta
//! arrives with the buffer, and its address is only given for the memory that was sent. Two real
//! processes are tested in tests/guest/kmsflipsink/unixfd.rs.

mod common;

use std::{os::unix::fs::FileExt, time::Duration};

use gst::{glib, prelude::*};
use gstphysmem::{
    memory::{AddressUnknown, MemoryKind},
    meta::PhysMemMeta,
    pool::{PhysBufferPool, PoolError, Wait},
};

const SIZE: usize = 3 * 4096;
const TIMEOUT: gst::ClockTime = gst::ClockTime::from_seconds(30);

fn pool(kind: MemoryKind, buffers: u32) -> PhysBufferPool {
    gst::init().unwrap();
    let pool = PhysBufferPool::builder().kind(kind).build();
    activate(&pool, buffers);
    pool
}

fn activate(pool: &PhysBufferPool, buffers: u32) {
    let mut config = pool.config();
    config.set_params(None, SIZE as u32, buffers, buffers);
    pool.set_config(config).unwrap();
    pool.set_active(true).unwrap();
}

/// Two pipelines: `appsrc ! unixfdsink` and `unixfdsrc ! relay ! appsink`.
struct Connection {
    sender: gst::Pipeline,
    receiver: gst::Pipeline,
    _directory: tempfile::TempDir,
}

impl Connection {
    fn new() -> Self {
        Self::through("identity")
    }

    fn through(relay: &str) -> Self {
        gst::init().unwrap();
        let directory = tempfile::tempdir().unwrap();
        let socket = |n: u32| directory.path().join(n.to_string());
        let sender = launch(&format!(
            "appsrc name=in format=time caps=application/x-test ! unixfdsink wait-for-connection=true sync=false enable-last-sample=false socket-path={}",
            socket(0).display()
        ));
        let receiver = launch(&format!(
            "unixfdsrc socket-path={} ! {relay} ! appsink name=out sync=false enable-last-sample=false",
            socket(0).display()
        ));
        sender.set_state(gst::State::Playing).unwrap();
        // The receiver connects during its state change.
        receiver.set_state(gst::State::Playing).unwrap();
        Self {
            sender,
            receiver,
            _directory: directory,
        }
    }

    fn send(&self, buffer: gst::Buffer) -> gst::Buffer {
        let appsrc = self.sender.by_name("in").unwrap();
        let appsrc = appsrc.downcast::<gst_app::AppSrc>().unwrap();
        appsrc.push_buffer(buffer).unwrap();
        let appsink = self.receiver.by_name("out").unwrap();
        let appsink = appsink.downcast::<gst_app::AppSink>().unwrap();
        let sample = appsink.try_pull_sample(TIMEOUT).expect("a buffer arrives");
        sample.buffer_owned().unwrap()
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.receiver.set_state(gst::State::Null).unwrap();
        self.sender.set_state(gst::State::Null).unwrap();
    }
}

fn launch(line: &str) -> gst::Pipeline {
    let pipeline = gst::parse::launch(line).unwrap();
    pipeline.downcast().unwrap()
}

fn meta(buffer: &gst::BufferRef) -> gst::MetaRef<'_, PhysMemMeta> {
    buffer.meta::<PhysMemMeta>().expect("a PhysMemMeta")
}

/// The physical address of a byte from this process's pagemap; None without CAP_SYS_ADMIN.
fn pagemap(byte: *const u8) -> Option<u64> {
    let mut entry = [0; 8];
    let pagemap = std::fs::File::open("/proc/self/pagemap").unwrap();
    let (address, page) = (byte as u64, common::page_size() as u64);
    pagemap
        .read_exact_at(&mut entry, address / page * 8)
        .unwrap();
    let frame = u64::from_ne_bytes(entry) & ((1 << 55) - 1);
    (frame != 0).then_some(frame * page + address % page)
}

#[test]
fn what_the_pool_says_of_a_buffer_arrives_with_it() {
    let pool = pool(MemoryKind::Normal, 2);
    let connection = Connection::new();
    let mut sent = pool.acquire_free(Wait::No).unwrap();
    let bytes: Vec<u8> = (0..SIZE).map(|i| (i / 7) as u8).collect();
    sent.get_mut().unwrap().copy_from_slice(0, &bytes).unwrap();
    let received = connection.send(sent.clone());

    let (here, there) = (meta(&sent), meta(&received));
    assert!(there.is_received() && !here.is_received());
    assert_eq!(there.id(), here.id());
    assert_eq!(there.kind(), MemoryKind::Normal);
    assert_eq!(there.heap(), here.heap());
    assert_eq!(there.size_bytes(), SIZE);
    assert!(there.region().is_none());
    // Memory without a dma-buf is pinned by the sender only.
    assert!(!there.is_pinned());

    let map = received.map_readable().unwrap();
    assert_eq!(map.as_slice(), bytes);
    match here.address() {
        Ok(address) => {
            assert_eq!(there.address(), Ok(address));
            for page in (0..SIZE).step_by(common::page_size()) {
                let at = address.at(page as u64).unwrap();
                assert_eq!(pagemap(&map[page]), Some(at.0), "byte {page}");
            }
        }
        Err(reason) => {
            let said = there.address().unwrap_err().to_string();
            assert!(said.starts_with(&reason.to_string()), "{said}");
        }
    }
}

#[test]
fn a_pool_that_withholds_its_addresses_tells_no_other_process() {
    gst::init().unwrap();
    let pool = PhysBufferPool::builder()
        .kind(MemoryKind::Normal)
        .withhold_address(true)
        .build();
    activate(&pool, 1);
    let sent = pool.acquire_free(Wait::No).unwrap();
    let received = Connection::new().send(sent.clone());
    let (here, there) = (meta(&sent), meta(&received));
    assert_eq!(there.id(), here.id());
    assert_eq!(there.size_bytes(), here.size_bytes());
    assert_eq!(there.phys_addr(), None);
    let reason = there.address().unwrap_err().to_string();
    assert!(reason.contains("withhold-address"), "{reason}");
    // The sending process itself may still know the address.
    let withheld = here.address().err();
    assert!(!withheld.is_some_and(|reason| *reason == AddressUnknown::Withheld));
}

#[test]
fn a_language_without_a_header_reads_what_was_received() {
    let pool = pool(MemoryKind::Normal, 1);
    let sent = pool.acquire_free(Wait::No).unwrap();
    let received = Connection::new().send(sent.clone());
    let describe = |buffer: &gst::Buffer| {
        pool.emit_by_name::<Option<gst::Structure>>("describe", &[buffer])
            .unwrap()
    };
    let (here, there) = (describe(&sent), describe(&received));
    assert!(!here.get::<bool>("received").unwrap());
    assert!(there.get::<bool>("received").unwrap());
    for field in [
        "id",
        "size",
        "kind",
        "ownership",
        "phys-addr",
        "address-source",
        "contiguous",
        "extents",
    ] {
        let value = |s: &gst::Structure| s.value(field).map(|v| format!("{v:?}")).ok();
        assert_eq!(value(&there), value(&here), "{field}");
    }
}

#[test]
fn a_resized_buffer_is_where_its_first_byte_is() {
    let pool = pool(MemoryKind::Normal, 1);
    let mut sent = pool.acquire_free(Wait::No).unwrap();
    sent.get_mut().unwrap().resize(4101..4201).unwrap();
    let received = Connection::new().send(sent.clone());
    assert_eq!(meta(&received).phys_addr(), meta(&sent).phys_addr());
    assert_eq!(received.size(), 100);
    if let Some(address) = meta(&received).phys_addr() {
        let map = received.map_readable().unwrap();
        assert_eq!(map[0], 0); // the read faults the page in
        assert_eq!(pagemap(map.as_ptr()), Some(address.0));
    }
}

#[test]
fn a_copy_keeps_it_only_with_the_memory() {
    let pool = pool(MemoryKind::Normal, 1);
    let received = Connection::new().send(pool.acquire_free(Wait::No).unwrap());
    let shallow = received.copy();
    assert_eq!(meta(&shallow).address(), meta(&received).address());
    let deep = received.copy_deep().unwrap();
    assert!(deep.meta::<PhysMemMeta>().is_none());
    let part = received.copy_region(gst::BUFFER_COPY_ALL, 0..100).unwrap();
    assert!(part.meta::<PhysMemMeta>().is_none());
}

#[test]
fn other_memory_in_the_buffer_has_no_address() {
    let (pool, other) = (pool(MemoryKind::Normal, 1), pool(MemoryKind::Normal, 1));
    let connection = Connection::new();
    let mut received = connection.send(pool.acquire_free(Wait::No).unwrap());
    let another = connection.send(other.acquire_free(Wait::No).unwrap());
    let writable = received.make_mut();
    writable.replace_all_memory(another.peek_memory(0).to_owned());
    assert_eq!(meta(writable).address(), Err(&AddressUnknown::Replaced));
    assert_eq!(meta(writable).phys_addr(), None);
    writable.replace_all_memory(gst::Memory::from_slice([0; SIZE]));
    assert_eq!(meta(writable).address(), Err(&AddressUnknown::Replaced));
}

#[test]
fn the_address_of_memory_that_cannot_be_sent_is_not_sent() {
    gst::init().unwrap();
    let block: &'static mut [u8] = Box::leak(vec![7; SIZE].into_boxed_slice());
    let block = gstphysmem::pool::MemoryBlock {
        virt: std::ptr::NonNull::new(block.as_mut_ptr()).unwrap(),
        phys: Some(gstphysmem::memory::PhysAddr(0x4000_0000)),
        size_bytes: SIZE,
    };
    // SAFETY: leaked, so mapped for ever.
    let without_fd = unsafe { PhysBufferPool::with_regions(&[block]) };
    activate(&without_fd, 1);
    let buffer = without_fd.acquire_free(Wait::No).unwrap();
    // Some versions of unixfdsink copy such memory; others refuse the buffer.
    assert!(!can_be_sent(&buffer));

    let mut buffer = pool(MemoryKind::Normal, 1).acquire_free(Wait::No).unwrap();
    assert!(can_be_sent(&buffer));
    let other = gst::Memory::from_slice([0; SIZE]);
    buffer.make_mut().replace_all_memory(other);
    assert!(!can_be_sent(&buffer));
}

fn can_be_sent(buffer: &gst::BufferRef) -> bool {
    let meta = meta(buffer);
    // SAFETY: the meta of a buffer that is alive, and a byte array of this function.
    unsafe {
        let bytes = glib::ffi::g_byte_array_new();
        let meta = (&raw const *meta).cast::<gst::ffi::GstMeta>();
        let sent = gst::ffi::gst_meta_serialize_simple(meta, bytes);
        assert_eq!((*bytes).len > 0, sent != glib::ffi::GFALSE);
        glib::ffi::g_byte_array_unref(bytes);
        sent != glib::ffi::GFALSE
    }
}

#[test]
fn a_buffer_comes_back_when_the_receiver_lets_go_of_it() {
    let pool = pool(MemoryKind::Normal, 2);
    let connection = Connection::new();
    let [first, _second] = [0; 2].map(|_| connection.send(pool.acquire_free(Wait::No).unwrap()));
    let while_held = pool.acquire_free(Wait::AtMost(Duration::from_millis(50)));
    assert!(while_held.is_err());
    let id = meta(&first).id();
    drop(first);
    let again = pool.acquire_free(Wait::AtMost(Duration::from_secs(30)));
    assert_eq!(meta(&again.unwrap()).id(), id);
}

#[test]
fn a_receiver_that_sends_it_on_says_the_same() {
    let pool = pool(MemoryKind::Normal, 1);
    let sent = pool.acquire_free(Wait::No).unwrap();
    let (first, second) = (Connection::new(), Connection::new());
    let received = second.send(first.send(sent.clone()));
    assert_eq!(meta(&received).id(), meta(&sent).id());
    assert_eq!(meta(&received).address().ok(), meta(&sent).address().ok());
    if meta(&sent).address().is_err() {
        let reason = meta(&received).address().unwrap_err().to_string();
        assert_eq!(reason.matches("says the process").count(), 1, "{reason}");
    }
}

#[test]
fn a_received_buffer_is_no_buffer_of_a_pool_here() {
    let pool = pool(MemoryKind::Normal, 1);
    let received = Connection::new().send(pool.acquire_free(Wait::No).unwrap());
    let id = meta(&received).id();
    let refused = pool.submit_filled(received).unwrap_err();
    assert!(
        matches!(refused, PoolError::Foreign { id: named, .. } if named == id),
        "{refused}"
    );
}

#[test]
fn bytes_that_are_no_meta_are_refused_and_the_buffer_arrives() {
    gst::init().unwrap();
    gstphysmem::plugin_register_static().unwrap();
    let name = c"GstPhysMemMeta";
    let mut bytes = Vec::new();
    let body = [0xff; 60];
    let header = 8 + name.count_bytes() + 2;
    bytes.extend(((header + body.len()) as u32).to_le_bytes());
    bytes.extend((name.count_bytes() as u32).to_le_bytes());
    bytes.extend(name.to_bytes_with_nul());
    bytes.push(0); // version
    bytes.extend(body);
    let mut buffer = gst::Buffer::new();
    let mut consumed = 0;
    // SAFETY: a writable buffer, bytes and their length, a place for a count.
    let meta = unsafe {
        let buffer = buffer.get_mut().unwrap().as_mut_ptr();
        gst::ffi::gst_meta_deserialize(buffer, bytes.as_ptr(), bytes.len(), &mut consumed)
    };
    assert!(meta.is_null());
    assert_eq!(consumed as usize, bytes.len());
    assert!(buffer.meta::<PhysMemMeta>().is_none());
}
