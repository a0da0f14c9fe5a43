// SPDX-License-Identifier: MPL-2.0
//! From a request to a region: the providers that are tried, their order, and the constraints of the request
//! that each of them can keep.

use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;

use super::error::MemoryError;
use super::kind::MemoryKind;
use super::provider::{KindInfo, MemoryProvider, TriedByAuto};
use super::region::Region;
use super::table::TABLE;
use super::{CAT, remedy};
use crate::address::{Address, AddressUnknown, PhysAddr};
use crate::sys::dma_heap;

/// What a block of memory must be.
#[derive(Clone, Copy, Debug, Default)]
pub struct Request<'a> {
    /// The kind of memory. Only [`MemoryKind::Auto`] lets the library choose one.
    pub kind: MemoryKind,
    /// Name of the heap. For the kinds cma and system it is a name under /dev/dma_heap; without it, kind
    /// cma tries the usual names. For kind udmabuf it is `hugetlb` or `shmem`; without it, the first of the
    /// two that works is taken. No other heap is taken in place of a named one.
    pub heap: Option<&'a str>,
    /// Least size in bytes.
    pub size_bytes: usize,
    /// The memory must have a dma-buf.
    pub needs_dma_buf: bool,
    /// All of the memory must be one physical extent.
    pub needs_contiguous: bool,
    /// The highest address that the memory's last byte may have.
    pub max_address: Option<PhysAddr>,
}

/// How many blocks the kernel is asked for to find one below `max_address`.
const MAX_ATTEMPTS: usize = 16;

impl Region {
    /// Allocates the requested block. Kind auto tries the kinds from best to last. Every other kind gives
    /// memory of that kind or an error.
    ///
    /// # Errors
    /// [`MemoryError`] names the object that refused, the errno and a remedy.
    pub fn allocate(request: &Request<'_>) -> Result<Arc<Self>, MemoryError> {
        if request.size_bytes == 0 {
            return Err(MemoryError::ZeroSize);
        }
        let region = match request.kind {
            MemoryKind::External => Err(MemoryError::External),
            MemoryKind::Auto => auto(request),
            kind => of_kind(kind.info(), request),
        };
        region.map(Arc::new)
    }
}

/// Refuses more memory than the machine can give. Without this check a pool would allocate block after
/// block, for minutes, until the machine has no memory left.
pub(crate) fn check_total(
    kind: MemoryKind,
    size_bytes: usize,
    count: usize,
) -> Result<(), MemoryError> {
    let total_bytes = (size_bytes as u64).saturating_mul(count as u64);
    MemoryError::unless_within(kind.info().supply.available_in_total(), kind, total_bytes)
}

fn of_kind(info: &'static KindInfo, request: &Request<'_>) -> Result<Region, MemoryError> {
    first_that_works(info, request)?.map_err(|failures| {
        let mut failures = failures.into_iter();
        let reported = match info.is_contiguous {
            // The heaps come best first, and the others may be only other names of the first one.
            true => failures.next(),
            // The last provider asks least of the machine, so its error is the one to report.
            false => failures.next_back(),
        };
        reported.map_or_else(|| no_heap(info.kind), |(_, error)| error)
    })
}

/// Tries the kinds from best to last. The region remembers which kinds were passed over, and why.
fn auto(request: &Request<'_>) -> Result<Region, MemoryError> {
    let mut passed_over = Vec::new();
    for info in TABLE
        .iter()
        .filter(|info| info.tried_by_auto != TriedByAuto::No)
    {
        let request = Request {
            heap: request
                .heap
                .filter(|_| info.tried_by_auto == TriedByAuto::WithHeapName),
            ..*request
        };
        let kind = info.kind;
        match first_that_works(info, &request)? {
            Ok(mut region) => {
                let choice = if passed_over.is_empty() {
                    format!("{kind}, the best kind")
                } else {
                    format!("{kind}; passed over: {}", passed_over.join("; "))
                };
                log_once(&choice);
                region.auto_choice = Some(choice);
                return Ok(region);
            }
            Err(failures) if failures.is_empty() => {
                passed_over.push(format!("{kind} ({})", no_heap(kind)));
            }
            Err(failures) => {
                let mut reasons: Vec<_> = failures
                    .iter()
                    .map(|(provider, error)| (provider, error.to_string()))
                    .collect();
                // When a device is missing, all providers that need it fail with the same error.
                reasons.dedup_by(|(_, again), (_, before)| again == before);
                passed_over.extend(
                    reasons
                        .iter()
                        .map(|(provider, reason)| format!("{provider} ({reason})")),
                );
            }
        }
    }
    Err(MemoryError::NoKind(passed_over.join("; ")))
}

/// Logs a choice of kind auto at level INFO, but at DEBUG when it repeats the last choice, as for further
/// blocks of the same pool.
fn log_once(choice: &str) {
    static LAST: Mutex<String> = Mutex::new(String::new());
    let is_news = {
        let mut last = LAST.lock();
        let is_news = *last != choice;
        choice.clone_into(&mut last);
        is_news
    };
    if is_news {
        gst::info!(CAT, "kind auto is {choice}");
    } else {
        gst::debug!(CAT, "kind auto is {choice}");
    }
}

/// Makes a region by the first provider of a kind that keeps the constraints. The inner error has the answer
/// of every provider.
fn first_that_works(
    info: &'static KindInfo,
    request: &Request<'_>,
) -> Result<Result<Region, Vec<(MemoryProvider, MemoryError)>>, MemoryError> {
    let providers =
        (info.providers)(info, request.heap).ok_or_else(|| MemoryError::NoSuchHeap {
            kind: info.kind,
            heap: request.heap.unwrap_or_default().to_owned(),
        })?;
    let mut failures = Vec::new();
    for provider in providers {
        match constrained(&provider, request) {
            Ok(region) => return Ok(Ok(region)),
            Err(error) => failures.push((provider, error)),
        }
    }
    Ok(Err(failures))
}

/// The reason why a kind has no provider.
fn no_heap(kind: MemoryKind) -> MemoryError {
    match dma_heap::names() {
        Ok(names) => MemoryError::NoHeap { kind, names },
        Err(source) => MemoryError::Refused {
            object: dma_heap::DIRECTORY.to_owned(),
            remedy: remedy::for_device(
                Path::new(dma_heap::DIRECTORY),
                &source,
                "the kernel needs CONFIG_DMABUF_HEAPS, and CONFIG_DMABUF_HEAPS_CMA with cma= \
                 on its command line",
            ),
            source,
        },
    }
}

/// Makes a region by this provider if it can keep the request's constraints.
fn constrained(provider: &MemoryProvider, request: &Request<'_>) -> Result<Region, MemoryError> {
    let kind = provider.info.kind;
    if request.needs_dma_buf && !kind.has_dma_buf() {
        return Err(MemoryError::NoDmaBuf(kind));
    }
    let limit_bytes = provider.contiguous_bytes();
    if request.needs_contiguous && request.size_bytes > limit_bytes {
        return Err(MemoryError::NotContiguous {
            kind,
            size_bytes: request.size_bytes,
            limit_bytes,
        });
    }
    let make = || provider.region(request.size_bytes);
    let Some(max_address) = request.max_address else {
        return make();
    };
    let max_attempts = match provider.info.is_contiguous {
        // Such a heap gives its lowest free block first, so a second block would be higher.
        true => 1,
        false => MAX_ATTEMPTS,
    };
    allocate_below(kind, max_address, max_attempts, make, |region| {
        region.address().map(Address::last_byte)
    })
}

/// Asks for blocks until one lies below the limit. It keeps the blocks that are too high, so that the
/// kernel must give others.
fn allocate_below<R>(
    kind: MemoryKind,
    max_address: PhysAddr,
    max_attempts: usize,
    mut make: impl FnMut() -> Result<R, MemoryError>,
    last_byte: impl Fn(&R) -> Result<PhysAddr, &AddressUnknown>,
) -> Result<R, MemoryError> {
    let mut too_high = Vec::new();
    let mut lowest: Option<PhysAddr> = None;
    while too_high.len() < max_attempts {
        let block = match make() {
            Ok(block) => block,
            Err(error) if too_high.is_empty() => return Err(error),
            // No memory is left for another attempt.
            Err(_) => break,
        };
        let last_byte = last_byte(&block).map_err(|reason| MemoryError::AddressNeeded {
            kind,
            reason: reason.clone(),
        })?;
        if last_byte <= max_address {
            return Ok(block);
        }
        lowest = Some(lowest.map_or(last_byte, |lowest| lowest.min(last_byte)));
        too_high.push(block);
    }
    Err(MemoryError::AboveMaxAddress {
        kind,
        max_address,
        last_byte: lowest.unwrap_or(max_address),
        attempts: too_high.len(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_without_number_are_refused_before_the_first() {
        for kind in [
            MemoryKind::Auto,
            MemoryKind::Udmabuf,
            MemoryKind::Normal,
            MemoryKind::System,
        ] {
            for (size_bytes, count) in [
                (usize::MAX, usize::MAX),
                (usize::MAX, 1 << 20),
                (1 << 20, usize::MAX),
            ] {
                let refused = check_total(kind, size_bytes, count);
                assert!(
                    matches!(refused, Err(MemoryError::TooLarge { .. })),
                    "{kind}"
                );
            }
            assert!(check_total(kind, 4096, 4).is_ok(), "{kind}");
            assert!(check_total(kind, usize::MAX, 0).is_ok(), "{kind}");
        }
    }

    fn ask_below(max: u64, ends: &[u64]) -> Result<u64, MemoryError> {
        let mut ends = ends.iter();
        let make = || ends.next().copied().ok_or(MemoryError::ZeroSize);
        allocate_below(MemoryKind::Normal, PhysAddr(max), 4, make, |&end| {
            Ok(PhysAddr(end))
        })
    }

    #[test]
    fn blocks_above_the_limit_are_asked_for_again() {
        assert_eq!(ask_below(100, &[300, 200, 100]).unwrap(), 100);
    }

    #[test]
    fn attempts_end_after_some_and_tell_the_lowest() {
        let error = ask_below(100, &[300, 200, 400, 500, 50]).unwrap_err();
        assert!(
            matches!(
                error,
                MemoryError::AboveMaxAddress {
                    last_byte: PhysAddr(200),
                    attempts: 4,
                    ..
                }
            ),
            "{error}"
        );
    }

    #[test]
    fn running_out_on_the_way_is_still_above_the_limit() {
        let error = ask_below(100, &[300]).unwrap_err();
        assert!(
            matches!(error, MemoryError::AboveMaxAddress { attempts: 1, .. }),
            "{error}"
        );
        // Without any block, the kernel's own error is reported.
        assert!(matches!(ask_below(100, &[]), Err(MemoryError::ZeroSize)));
    }
}
