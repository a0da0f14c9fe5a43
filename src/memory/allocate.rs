// SPDX-License-Identifier: MPL-2.0
//! From a request to a region: the providers that are tried, their order, and the constraints of the request
//! that each of them can keep.

use std::path::Path;
use std::sync::Arc;

use super::error::MemoryError;
use super::kind::MemoryKind;
use super::provider::{KindInfo, MemoryProvider, TriedByAuto};
use super::region::Region;
use super::table::TABLE;
use super::{CAT, remedy};
use crate::address::{Address, AddressUnknown, PhysAddr};
use crate::locks::Mutex;
use crate::sys::dma_heap;

/// What a block of memory must be.
#[derive(Clone, Copy, Debug, Default)]
pub struct Request<'a> {
    /// The kind of memory. Only [`MemoryKind::Auto`] lets the library choose one.
    pub kind: MemoryKind,
    /// Name of the heap. For the kinds cma and system it is a name under /dev/dma_heap; without it, kind
    /// cma tries the usual names. For kind udmabuf it is `hugetlb` or `shmem`; without it, the first of the
    /// two that works is taken. For kind region it names the memory, as in `/dev/mem@0x30000000+64M`. No
    /// other heap is taken in place of a named one.
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

/// Makes a region by this provider if the region can keep the request's constraints.
fn constrained(provider: &MemoryProvider, request: &Request<'_>) -> Result<Region, MemoryError> {
    let kind = provider.info.kind;
    if request.needs_dma_buf && !provider.may_have_dma_buf {
        return Err(MemoryError::NoDmaBuf(kind));
    }
    let mut size_bytes = request.size_bytes;
    let limit_bytes = provider.contiguous_bytes();
    let is_contiguous_by_chance = request.needs_contiguous && size_bytes > limit_bytes;
    if is_contiguous_by_chance {
        // Large pages are often neighbours; small ones hardly ever are.
        let whole = |large| in_large_pages(size_bytes, large);
        let whole = provider.large_page_bytes.and_then(whole);
        size_bytes = whole.ok_or(MemoryError::NotContiguous {
            kind,
            size_bytes,
            limit_bytes,
        })?;
    }
    let make = || {
        let region = provider.region(size_bytes, request.max_address)?;
        match request.needs_dma_buf && region.dma_buf().is_none() {
            true => Err(MemoryError::NoDmaBuf(kind)),
            false => Ok(region),
        }
    };
    if !is_contiguous_by_chance && request.max_address.is_none() {
        return make();
    }
    let goal = Goal {
        kind,
        size_bytes: request.size_bytes,
        is_contiguous: is_contiguous_by_chance,
        max_address: request.max_address,
    };
    let max_attempts = match provider.info.is_contiguous {
        // Such a heap gives its lowest free block first, so a second block would be higher.
        true => 1,
        false => MAX_ATTEMPTS,
    };
    allocate_until(&goal, max_attempts, make, Region::address)
}

/// The size of a block that is made of large pages alone. `None` if it would have to grow to more than four times its
/// size, which is bearable for small blocks only: a large page has 512 MiB where pages have 64 KiB.
fn in_large_pages(size_bytes: usize, large_page_bytes: usize) -> Option<usize> {
    const SMALL_BYTES: usize = 2 << 20;
    let most = size_bytes.saturating_mul(4).max(SMALL_BYTES);
    let whole = size_bytes.checked_next_multiple_of(large_page_bytes)?;
    (whole <= most).then_some(whole)
}

/// What the address of a block must be.
struct Goal {
    kind: MemoryKind,
    size_bytes: usize,
    is_contiguous: bool,
    max_address: Option<PhysAddr>,
}

impl Goal {
    fn is_met_by(&self, address: &Address) -> bool {
        self.in_pieces(address).is_none() && self.too_high(address).is_none()
    }

    /// The number of extents, if that is a fault.
    fn in_pieces(&self, address: &Address) -> Option<usize> {
        let n_extents = address.extents().len();
        (self.is_contiguous && n_extents > 1).then_some(n_extents)
    }

    /// The last byte and the limit, if it lies above.
    fn too_high(&self, address: &Address) -> Option<(PhysAddr, PhysAddr)> {
        let limit = self.max_address?;
        let last_byte = address.last_byte();
        (last_byte > limit).then_some((last_byte, limit))
    }

    /// The error that remains when `address` is the nearest of the blocks tried.
    fn missed(&self, address: &Address, attempts: usize) -> MemoryError {
        let kind = self.kind;
        match (self.in_pieces(address), self.too_high(address)) {
            (None, Some((last_byte, max_address))) => MemoryError::AboveMaxAddress {
                kind,
                max_address,
                last_byte,
                attempts,
            },
            (n_extents, _) => MemoryError::InPieces {
                kind,
                size_bytes: self.size_bytes,
                n_extents: n_extents.unwrap_or(1),
                attempts,
            },
        }
    }
}

/// Asks for blocks until one's address meets the goal. It keeps the others until then, so that the kernel
/// must give other pages.
fn allocate_until<R>(
    goal: &Goal,
    max_attempts: usize,
    mut make: impl FnMut() -> Result<R, MemoryError>,
    address: impl Fn(&R) -> Result<&Address, &AddressUnknown>,
) -> Result<R, MemoryError> {
    let mut rejected = Vec::new();
    let mut nearest: Option<Address> = None;
    while rejected.len() < max_attempts {
        let block = match make() {
            Ok(block) => block,
            Err(error) if rejected.is_empty() => return Err(error),
            // No memory is left for another attempt.
            Err(_) => break,
        };
        let known = address(&block).map_err(|reason| MemoryError::AddressNeeded {
            constraint: match goal.is_contiguous {
                true => "require-contiguous",
                false => "max-address",
            },
            kind: goal.kind,
            reason: reason.clone(),
        })?;
        if goal.is_met_by(known) {
            return Ok(block);
        }
        let distance = |address: &Address| (goal.in_pieces(address), address.last_byte());
        if nearest
            .as_ref()
            .is_none_or(|nearest| distance(known) < distance(nearest))
        {
            nearest = Some(known.clone());
        }
        rejected.push(block);
    }
    match nearest {
        Some(nearest) => Err(goal.missed(&nearest, rejected.len())),
        None => make(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address::{AddressSource, Extent};

    #[test]
    fn a_block_grows_for_large_pages_within_reason() {
        const MIB: usize = 1 << 20;
        for (size, large, whole) in [
            (4097, 2 * MIB, Some(2 * MIB)),
            (3 * MIB, 2 * MIB, Some(4 * MIB)),
            (8 * MIB, 32 * MIB, Some(32 * MIB)),
            (65537, 512 * MIB, None),
            (usize::MAX, 2 * MIB, None),
        ] {
            assert_eq!(in_large_pages(size, large), whole, "{size}");
        }
    }

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

    /// Blocks of 10 bytes in extents that begin at these addresses.
    fn ask(goal: &Goal, blocks: &[&[u64]]) -> Result<Address, MemoryError> {
        let mut blocks = blocks.iter();
        let make = || {
            let starts = blocks.next().ok_or(MemoryError::ZeroSize)?;
            let extents = starts.iter().map(|&start| Extent {
                phys: PhysAddr(start),
                len_bytes: 10,
            });
            Ok(Address::new(extents.collect(), AddressSource::Pagemap).unwrap())
        };
        allocate_until(goal, 4, make, |address| Ok(address))
    }

    const BELOW_110: Goal = Goal {
        kind: MemoryKind::Normal,
        size_bytes: 10,
        is_contiguous: false,
        max_address: Some(PhysAddr(109)),
    };

    #[test]
    fn blocks_above_the_limit_are_asked_for_again() {
        let found = ask(&BELOW_110, &[&[300], &[200], &[100]]).unwrap();
        assert_eq!(found.first(), PhysAddr(100));
    }

    #[test]
    fn attempts_end_after_some_and_tell_the_lowest() {
        let error = ask(&BELOW_110, &[&[300], &[200], &[400], &[500], &[50]]).unwrap_err();
        assert!(
            matches!(
                error,
                MemoryError::AboveMaxAddress {
                    last_byte: PhysAddr(209),
                    attempts: 4,
                    ..
                }
            ),
            "{error}"
        );
    }

    #[test]
    fn running_out_on_the_way_is_still_above_the_limit() {
        let error = ask(&BELOW_110, &[&[300]]).unwrap_err();
        assert!(
            matches!(error, MemoryError::AboveMaxAddress { attempts: 1, .. }),
            "{error}"
        );
        // Without any block, the kernel's own error is reported.
        assert!(matches!(ask(&BELOW_110, &[]), Err(MemoryError::ZeroSize)));
    }

    #[test]
    fn blocks_in_pieces_are_asked_for_again_and_the_fewest_pieces_told() {
        let goal = Goal {
            is_contiguous: true,
            max_address: None,
            ..BELOW_110
        };
        let found = ask(&goal, &[&[100, 200], &[500]]).unwrap();
        assert_eq!(found.first(), PhysAddr(500));
        let error = ask(&goal, &[&[1, 20, 40], &[100, 200], &[1, 20, 40]]).unwrap_err();
        assert!(
            matches!(
                error,
                MemoryError::InPieces {
                    n_extents: 2,
                    attempts: 3,
                    ..
                }
            ),
            "{error}"
        );
    }

    #[test]
    fn a_contiguous_block_that_is_too_high_is_told_as_that() {
        let goal = Goal {
            is_contiguous: true,
            ..BELOW_110
        };
        let error = ask(&goal, &[&[100, 20], &[500]]).unwrap_err();
        assert!(
            matches!(
                error,
                MemoryError::AboveMaxAddress {
                    last_byte: PhysAddr(509),
                    attempts: 2,
                    ..
                }
            ),
            "{error}"
        );
    }
}
