// SPDX-License-Identifier: MPL-2.0
//! The SIGBUS handler for missing pages of mapped files, and its list of our mappings.
//!
//! The handler is one link of a chain. It handles only pages of our own mappings that the kernel reports as
//! missing. Every other SIGBUS, also one that a process sent, has the effect that it would have without
//! this handler. A handler that other code installs later comes before ours in the chain if it passes on
//! signals that are not its own; otherwise it replaces ours. The next mapping then installs ours again in
//! front, as a new link. A link never changes the handler that it passes signals to, so no two handlers can
//! pass a signal to each other for ever.

use std::{
    io,
    ops::Range,
    ptr,
    sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, AtomicUsize, Ordering, fence},
};

use nix::errno::Errno;

use crate::locks::Mutex;
use crate::sys::mmap::page_size_bytes;

/// The value of `missing` if no byte is missing.
const NONE: usize = usize::MAX;

/// The signal handler's record of a mapping. Records are reused and never freed, so that the handler can walk
/// the list at any time.
pub struct WatchedMapping {
    /// Odd while start and end are being changed.
    generation: AtomicU32,
    start: AtomicUsize,
    end: AtomicUsize,
    /// The lowest address at which a page was missing.
    missing: AtomicUsize,
    in_use: AtomicBool,
    next: *const WatchedMapping,
}

// SAFETY: `next` is set before the record is published and never changed.
unsafe impl Sync for WatchedMapping {}
// SAFETY: as above.
unsafe impl Send for WatchedMapping {}

static WATCHED_MAPPINGS: AtomicPtr<WatchedMapping> = AtomicPtr::new(ptr::null_mut());

pub fn watched_mappings() -> impl Iterator<Item = &'static WatchedMapping> {
    let mut next: *const WatchedMapping = WATCHED_MAPPINGS.load(Ordering::Acquire);
    std::iter::from_fn(move || {
        // SAFETY: null, or a record from `claim`, which leaks its records.
        let record = unsafe { next.as_ref() }?;
        next = record.next;
        Some(record)
    })
}

/// Takes a record that no mapping uses, or makes one.
pub fn claim() -> &'static WatchedMapping {
    for record in watched_mappings() {
        if !record.in_use.swap(true, Ordering::AcqRel) {
            return record;
        }
    }
    let record = Box::leak(Box::new(WatchedMapping::new()));
    let mut head = WATCHED_MAPPINGS.load(Ordering::Acquire);
    loop {
        record.next = head;
        match WATCHED_MAPPINGS.compare_exchange(head, record, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => return record,
            Err(now) => head = now,
        }
    }
}

impl WatchedMapping {
    pub(super) fn new() -> Self {
        Self {
            generation: AtomicU32::new(0),
            start: AtomicUsize::new(0),
            end: AtomicUsize::new(0),
            missing: AtomicUsize::new(NONE),
            in_use: AtomicBool::new(true),
            next: ptr::null(),
        }
    }

    /// Makes the handler watch these addresses, and forgets missing pages. The record's claimer calls this.
    pub fn watch(&self, addresses: Range<usize>) {
        self.missing.store(NONE, Ordering::Relaxed);
        let generation = self.generation.load(Ordering::Relaxed);
        self.generation
            .store(generation.wrapping_add(1), Ordering::Relaxed);
        fence(Ordering::Release);
        self.start.store(addresses.start, Ordering::Relaxed);
        self.end.store(addresses.end, Ordering::Relaxed);
        self.generation
            .store(generation.wrapping_add(2), Ordering::Release);
    }

    /// Takes over what others know to be missing of the same bytes: there are zeroes already, which raise no signal.
    pub fn note_known_missing(&self, addresses: Range<usize>) {
        for other in watched_mappings().filter(|other| !ptr::eq(*other, self)) {
            let known = other.addresses().zip(other.missing());
            if let Some((theirs, missing)) = known
                && theirs.contains(&missing)
                && (missing.max(addresses.start)) < addresses.end.min(theirs.end)
            {
                self.missing
                    .fetch_min(missing.max(addresses.start), Ordering::AcqRel);
            }
        }
    }

    /// The watched addresses. `None` while they change. The addresses of a mapping do not change while it
    /// is in use, so the handler always finds it.
    pub fn addresses(&self) -> Option<Range<usize>> {
        let generation = self.generation.load(Ordering::Acquire);
        let addresses = self.start.load(Ordering::Relaxed)..self.end.load(Ordering::Relaxed);
        fence(Ordering::Acquire);
        let is_whole =
            generation.is_multiple_of(2) && self.generation.load(Ordering::Relaxed) == generation;
        is_whole.then_some(addresses)
    }

    /// The address of the lowest missing page that was accessed.
    pub fn missing(&self) -> Option<usize> {
        let missing = self.missing.load(Ordering::Acquire);
        (missing != NONE).then_some(missing)
    }

    /// Lets another mapping claim the record.
    pub fn release(&self) {
        self.in_use.store(false, Ordering::Release);
    }
}

type Handler = extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void);

/// The most links that a process can have.
const LINKS: [Handler; 8] = [
    on_sigbus::<0>,
    on_sigbus::<1>,
    on_sigbus::<2>,
    on_sigbus::<3>,
    on_sigbus::<4>,
    on_sigbus::<5>,
    on_sigbus::<6>,
    on_sigbus::<7>,
];

/// The action that each link passes signals to. Null for a link that was never installed.
static PREVIOUS: [AtomicPtr<libc::sigaction>; LINKS.len()] =
    [const { AtomicPtr::new(ptr::null_mut()) }; LINKS.len()];

/// Makes sure that one of our links is the handler in force.
pub fn install() -> io::Result<()> {
    static INSTALLING: Mutex<()> = Mutex::new(());
    let _one_at_a_time = INSTALLING.lock();
    let mut current = exchange(None)?;
    while !is_ours(&current) {
        let link = link_for(&current)
            .ok_or_else(|| io::Error::other("other code keeps replacing the SIGBUS handler"))?;
        // SAFETY: sigaction is plain data, for which zeroes are a valid value.
        let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
        action.sa_sigaction = LINKS[link] as usize;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
        let replaced = exchange(Some(&action))?;
        if is_same(&replaced, &current) {
            break;
        }
        // Other code replaced the handler meanwhile, so the link must pass signals on to that one.
        current = replaced;
    }
    Ok(())
}

fn is_ours(action: &libc::sigaction) -> bool {
    LINKS
        .iter()
        .any(|link| *link as usize == action.sa_sigaction)
}

fn is_same(a: &libc::sigaction, b: &libc::sigaction) -> bool {
    a.sa_sigaction == b.sa_sigaction && a.sa_flags == b.sa_flags
}

/// Finds or sets up a link that passes signals on to `action`.
fn link_for(action: &libc::sigaction) -> Option<usize> {
    for (index, place) in PREVIOUS.iter().enumerate() {
        // SAFETY: null, or leaked below.
        match unsafe { place.load(Ordering::Acquire).as_ref() } {
            Some(previous) if is_same(previous, action) => return Some(index),
            Some(_) => {}
            None => {
                // Stored before the handler is installed and can run.
                place.store(Box::leak(Box::new(*action)), Ordering::Release);
                return Some(index);
            }
        }
    }
    None
}

/// Returns the action in force. If `new` is given, it replaces that action.
fn exchange(new: Option<&libc::sigaction>) -> io::Result<libc::sigaction> {
    // SAFETY: sigaction is plain data, for which zeroes are a valid value.
    let mut old: libc::sigaction = unsafe { std::mem::zeroed() };
    let new = new.map_or(ptr::null(), ptr::from_ref);
    // SAFETY: the signal exists; `new` is null or a live struct whose handler, one of LINKS, has the
    // signature that SA_SIGINFO asks for and does only what is allowed in a handler: atomics and system
    // calls. `old` is a live struct.
    Errno::result(unsafe { libc::sigaction(libc::SIGBUS, new, &mut old) })?;
    Ok(old)
}

extern "C" fn on_sigbus<const LINK: usize>(
    signal: libc::c_int,
    info: *mut libc::siginfo_t,
    context: *mut libc::c_void,
) {
    let errno = Errno::last_raw();
    // SAFETY: the kernel gives a valid siginfo to a handler with SA_SIGINFO.
    let code = unsafe { (*info).si_code };
    // SAFETY: as above; the address is read only if the code says that there is one.
    if !(is_of_a_page(code) && map_zero_pages(unsafe { (*info).si_addr() } as usize)) {
        pass_on(LINK, signal, info, context);
    }
    Errno::set_raw(errno);
}

/// Whether the kernel reports that the instruction accessed a page that is missing or broken. Every other
/// code is a signal that a process sent (kill, sigqueue), an alignment error, or a report of broken memory
/// that was not accessed.
fn is_of_a_page(code: libc::c_int) -> bool {
    matches!(
        code,
        libc::BUS_ADRERR | libc::BUS_OBJERR | libc::BUS_MCEERR_AR
    )
}

/// Maps zeroed pages from the page of `address` on, if one of our mappings holds the address.
fn map_zero_pages(address: usize) -> bool {
    let page = address & !(page_size_bytes() - 1);
    let mut watched = None;
    // Several may watch the same bytes, and the zeroes raise no further signal.
    for record in watched_mappings() {
        let Some(addresses) = record.addresses().filter(|it| it.contains(&address)) else {
            continue;
        };
        record.missing.fetch_min(page, Ordering::AcqRel);
        watched.get_or_insert(addresses);
    }
    let Some(addresses) = watched else {
        return false;
    };
    // SAFETY: the range lies inside our own mapping, which the faulting code keeps alive; its bytes from
    // here on are missing, and zeroes replace them.
    let mapped = unsafe {
        libc::mmap(
            page as *mut _,
            addresses.end - page,
            libc::PROT_READ,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED,
            -1,
            0,
        )
    };
    mapped != libc::MAP_FAILED
}

/// Does what would happen without this handler.
fn pass_on(
    link: usize,
    signal: libc::c_int,
    info: *mut libc::siginfo_t,
    context: *mut libc::c_void,
) {
    // SAFETY: leaked by `link_for`, before the link was installed.
    let Some(previous) = (unsafe { PREVIOUS[link].load(Ordering::Acquire).as_ref() }) else {
        return;
    };
    // SAFETY: as in `on_sigbus`.
    let code = unsafe { (*info).si_code };
    let is_fault = is_of_a_page(code) || code == libc::BUS_ADRALN;
    match previous.sa_sigaction {
        // The kernel allows a process to ignore a sent signal, but not a fault.
        libc::SIG_IGN if !is_fault => {}
        libc::SIG_DFL | libc::SIG_IGN => {
            // SAFETY: zeroes are the default action.
            let default: libc::sigaction = unsafe { std::mem::zeroed() };
            // SAFETY: the signal exists, and the struct is live.
            unsafe { libc::sigaction(signal, &default, ptr::null_mut()) };
            if !is_fault {
                // SAFETY: sends this thread the same signal once more, which is blocked until the handler
                // has returned.
                unsafe {
                    libc::syscall(
                        libc::SYS_rt_tgsigqueueinfo,
                        libc::getpid(),
                        libc::gettid(),
                        signal,
                        info,
                    )
                };
            }
        }
        handler => call(handler, previous, signal, info, context),
    }
}

/// Calls a handler, with those signals blocked that its action asks for.
fn call(
    handler: usize,
    action: &libc::sigaction,
    signal: libc::c_int,
    info: *mut libc::siginfo_t,
    context: *mut libc::c_void,
) {
    // SAFETY: a sigset is plain data, for which zeroes are a valid value.
    let mut mask: libc::sigset_t = unsafe { std::mem::zeroed() };
    // SAFETY: both sets are live.
    unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &action.sa_mask, &mut mask) };
    if action.sa_flags & libc::SA_SIGINFO != 0 {
        // SAFETY: installed with SA_SIGINFO, so it has this signature.
        let handler: Handler = unsafe { std::mem::transmute(handler) };
        handler(signal, info, context);
    } else {
        // SAFETY: installed without SA_SIGINFO, so it takes the signal alone.
        let handler: extern "C" fn(libc::c_int) = unsafe { std::mem::transmute(handler) };
        handler(signal);
    }
    // SAFETY: the set is live.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &mask, ptr::null_mut()) };
}
