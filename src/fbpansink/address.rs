// SPDX-License-Identifier: MPL-2.0
//! Where the framebuffer is in physical memory. `smem_start` is 0 on most DRM drivers, a kernel virtual
//! address on some drivers (vfb) and meaningless on others, so it is used only if another source confirms it.
use super::CAT;
use crate::memory::{
    Address, AddressSource, AddressUnknown, Extent, ExternalAddress, Owner, PhysAddr, Region,
};
use crate::sys::fbdev::FbMemory;
use crate::sys::iomem::{self, Range};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

/// The address of all of the framebuffer's memory, or why it is not known. `scratch_bytes` is the offset of
/// bytes in `memory` that are not on screen and may be overwritten; `None` if there are none.
pub fn find(
    memory: &Arc<FbMemory>,
    smem_start: u64,
    smem_len: u64,
    start_bytes: usize,
    scratch_bytes: Option<usize>,
) -> Result<Address, Unknown> {
    let verdict = judge(smem_start, smem_len, &iomem::ranges());
    gst::debug!(CAT, "smem_start {smem_start:#x}: {verdict:?}");
    let given = || Address::contiguous(PhysAddr(smem_start), smem_len, AddressSource::SmemStart);
    match verdict {
        Verdict::Device(_) => given().ok_or(Unknown::reason("smem_len is 0")),
        // pagemap, if it lists the memory, is right whatever `smem_start` is.
        other => look_up(memory, start_bytes, smem_len).or_else(|unknown| match other {
            Verdict::Ram
                if scratch_bytes.is_some_and(|at| {
                    holds_the_same(memory, at, smem_start - start_bytes as u64)
                }) =>
            {
                given().ok_or(unknown)
            }
            other => Err(Unknown {
                reason: format!("{}; {}", other.why(smem_start), unknown.reason),
                ..unknown
            }),
        }),
    }
}

/// Why the address is not known.
#[derive(Debug)]
pub struct Unknown {
    /// The reason that goes into the meta of the buffers.
    pub kind: AddressUnknown,
    /// The reason as text, for `stats`.
    pub reason: String,
}

impl Unknown {
    fn reason(reason: &str) -> Self {
        Self {
            kind: AddressUnknown::NotGiven,
            reason: reason.into(),
        }
    }
}

fn look_up(memory: &Arc<FbMemory>, start_bytes: usize, len_bytes: u64) -> Result<Address, Unknown> {
    // SAFETY: the mapping is not empty and is readable and writable as long as `memory`
    // lives. The region holds `memory`.
    let region = unsafe {
        Region::external(
            memory.ptr(),
            memory.len_bytes(),
            ExternalAddress::LookUp,
            Owner::Shared(memory.clone()),
            None,
        )
    };
    match region.address() {
        Ok(address) => address
            .slice(start_bytes as u64, len_bytes)
            .ok_or(Unknown::reason("pagemap is too short")),
        Err(AddressUnknown::PfnMap) => Err(Unknown {
            kind: AddressUnknown::PfnMap,
            reason: "pagemap does not list the driver's memory (VM_PFNMAP)".into(),
        }),
        Err(kind) => Err(Unknown {
            kind: kind.clone(),
            reason: kind.to_string(),
        }),
    }
}

/// What /proc/iomem says about [smem_start, smem_start + smem_len).
#[derive(Clone, Debug, PartialEq, Eq)]
enum Verdict {
    /// The range lies in the memory of the device with this name, and is believed.
    Device(String),
    /// The range lies in RAM, where a wrong number is an address, too. It has to be proved.
    Ram,
    /// The driver does not report an address.
    Zero,
    /// The number has more bits than any physical address, for example because it is a
    /// kernel virtual address.
    Absurd,
    /// The range lies in no listed memory.
    Nowhere,
    /// The process lacks CAP_SYS_ADMIN, so /proc/iomem shows no addresses.
    Hidden,
}

impl Verdict {
    fn why(&self, smem_start: u64) -> String {
        match self {
            Self::Device(name) => format!("smem_start {smem_start:#x} lies in {name}"),
            Self::Ram => format!("smem_start {smem_start:#x} lies in RAM and nothing proves it"),
            Self::Zero => "the driver gives no smem_start (drm_kms_helper.drm_leak_fbdev_smem=1 makes some give it)".into(),
            Self::Absurd => format!("smem_start {smem_start:#x} is no physical address"),
            Self::Nowhere => format!("smem_start {smem_start:#x} lies in nothing that /proc/iomem lists"),
            Self::Hidden => format!("smem_start {smem_start:#x} cannot be checked: /proc/iomem hides addresses without CAP_SYS_ADMIN"),
        }
    }
}

/// The largest number of physical address bits of any CPU that runs Linux (x86-64, arm64 with LPA).
const MAX_PHYS_BITS: u32 = 52;

fn judge(smem_start: u64, smem_len: u64, iomem: &[Range]) -> Verdict {
    if smem_start == 0 {
        return Verdict::Zero;
    }
    let Some(last) = smem_start
        .checked_add(smem_len.max(1) - 1)
        .filter(|last| last >> MAX_PHYS_BITS == 0)
    else {
        return Verdict::Absurd;
    };
    if iomem.iter().all(|range| range.last == 0) {
        return Verdict::Hidden;
    }
    let holds = |range: &&Range| range.first <= smem_start && last <= range.last;
    if iomem
        .iter()
        .filter(holds)
        .any(|range| range.name == "System RAM")
    {
        return Verdict::Ram;
    }
    // The window of a PCI bus proves nothing, because it also covers addresses of no device.
    match iomem
        .iter()
        .filter(holds)
        .filter(|range| !range.name.starts_with("PCI Bus"))
        .max_by_key(|range| range.depth)
    {
        Some(range) => Verdict::Device(range.name.clone()),
        None => Verdict::Nowhere,
    }
}

/// Whether a mark that is written into the framebuffer can be read through /dev/mem at
/// the supposed address. Many kernels forbid that for RAM (CONFIG_STRICT_DEVMEM).
fn holds_the_same(memory: &FbMemory, at: usize, phys_of_mapping: u64) -> bool {
    let mut mark = [0u8; 64];
    let seed = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(1, |t| t.as_nanos() as u64)
        | 1;
    for (i, word) in mark.chunks_exact_mut(8).enumerate() {
        word.copy_from_slice(
            &seed
                .wrapping_mul(0x9e37_79b9_7f4a_7c15)
                .rotate_left(i as u32 * 7)
                .to_ne_bytes(),
        );
    }
    memory.write(at, &mark);
    let mut found = [0u8; 64];
    let read = File::open("/dev/mem")
        .and_then(|mem| mem.read_exact_at(&mut found, phys_of_mapping + at as u64));
    if let Err(e) = &read {
        gst::debug!(CAT, "/dev/mem at {phys_of_mapping:#x}: {e}");
    }
    memory.write(at, &[0; 64]);
    read.is_ok() && found == mark
}

/// The first extent's address and the number of further extents, for `stats`.
pub fn describe(address: &Address) -> String {
    match address.extents() {
        [Extent { phys, .. }] => format!("{phys}"),
        [Extent { phys, .. }, rest @ ..] => format!("{phys} and {} more extents", rest.len()),
        [] => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const IOMEM: &str = "\
00000000-00000fff : Reserved
00001000-0009fbff : System RAM
00100000-3ffdffff : System RAM
  01000000-019fffff : Kernel code
c0000000-febfffff : PCI Bus 0000:00
  fc000000-fdffffff : 0000:00:01.0
    fc000000-fdffffff : cirrusfb
  feb00000-feb00fff : 0000:00:02.0
";
    const MIB: u64 = 1 << 20;

    #[test]
    fn a_start_inside_a_device_is_believed() {
        let iomem = iomem::parse(IOMEM);
        assert_eq!(
            judge(0xfc00_0000, 4 * MIB, &iomem),
            Verdict::Device("cirrusfb".into())
        );
        assert_eq!(
            judge(0xfc00_0000, 64 * MIB, &iomem),
            Verdict::Nowhere,
            "longer than the device"
        );
        assert_eq!(
            judge(0xd000_0000, MIB, &iomem),
            Verdict::Nowhere,
            "no device there"
        );
    }

    #[test]
    fn a_start_in_ram_is_to_be_proved() {
        assert_eq!(
            judge(0x0200_0000, 4 * MIB, &iomem::parse(IOMEM)),
            Verdict::Ram
        );
        assert_eq!(judge(0x0150_0000, MIB, &iomem::parse(IOMEM)), Verdict::Ram);
    }

    #[test]
    fn no_address_and_kernel_virtual_addresses_are_not_believed() {
        let iomem = iomem::parse(IOMEM);
        assert_eq!(judge(0, MIB, &iomem), Verdict::Zero);
        assert_eq!(judge(0xffff_c900_0012_3000, MIB, &iomem), Verdict::Absurd);
        assert_eq!(judge(u64::MAX, 2, &iomem), Verdict::Absurd);
    }

    #[test]
    fn hidden_addresses_prove_nothing() {
        let hidden = iomem::parse("00000000-00000000 : Reserved\n00000000-00000000 : System RAM\n");
        assert_eq!(hidden.len(), 2);
        assert_eq!(judge(0xfc00_0000, MIB, &hidden), Verdict::Hidden);
        assert_eq!(judge(0xfc00_0000, MIB, &[]), Verdict::Hidden);
    }
}
