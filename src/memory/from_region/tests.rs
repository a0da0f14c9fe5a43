// SPDX-License-Identifier: MPL-2.0
//! Blocks of stand-ins: regular files in a directory that stands for `/`.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, PermissionsExt};

use super::*;
use crate::address::AddressSource;
use crate::memory::MemoryKind;

struct Machine(tempfile::TempDir);

impl Machine {
    /// A machine whose RAM ends at 0x1fff_ffff, with a /dev/mem.
    fn new() -> Self {
        let machine = Self(tempfile::tempdir().unwrap());
        machine.write(
            "proc/iomem",
            "00001000-1fffffff : System RAM\n20000000-2fffffff : Reserved\n",
        );
        machine.device("mem", 0x3000_0000);
        machine
    }

    fn write(&self, file: &str, text: &str) {
        let path = self.0.path().join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn device(&self, name: &str, len_bytes: u64) -> File {
        self.write(&format!("dev/{name}"), "");
        let path = self.0.path().join("dev").join(name);
        let file = File::options().read(true).write(true).open(path).unwrap();
        file.set_len(len_bytes).unwrap();
        file
    }

    fn block(
        &self,
        heap: &str,
        pages: usize,
        max_address: Option<u64>,
    ) -> Result<Region, MemoryError> {
        let providers = named_area(MemoryKind::Region.info(), Some(heap)).unwrap();
        let size_bytes = pages * page_size_bytes();
        region_below(
            self.0.path(),
            &providers[0],
            size_bytes,
            max_address.map(PhysAddr),
        )
    }

    #[track_caller]
    fn refused(&self, heap: &str, words: &[&str]) {
        let error = self.block(heap, 1, None).unwrap_err().to_string();
        for word in words {
            assert!(error.contains(word), "no {word:?} in {error}");
        }
    }
}

fn first(region: &Region) -> u64 {
    region.address().unwrap().first().0
}

fn write_to(region: &Region, byte: u8) {
    let access = region.begin_access(true).unwrap();
    // SAFETY: the region is mapped read-write, and no other thread has it.
    unsafe { access.ptr().write(byte) };
}

fn byte_at(file: &File, offset: u64) -> u8 {
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset).unwrap();
    byte[0]
}

#[test]
fn blocks_of_dev_mem_are_at_the_addresses_that_they_report() {
    let machine = Machine::new();
    let mem = machine.device("mem", 0x3000_0000);
    let page = page_size_bytes() as u64;
    let heap = format!("/dev/mem@0x20000000+{}", 3 * page);
    let one = machine.block(&heap, 1, None).unwrap();
    let two = machine.block(&heap, 2, None).unwrap();
    assert_eq!(
        (first(&one), first(&two)),
        (0x2000_0000, 0x2000_0000 + page)
    );
    assert_eq!(two.address().unwrap().source(), AddressSource::User);
    assert_eq!(
        (two.kind(), two.heap()),
        (MemoryKind::Region, Some(heap.as_str()))
    );
    assert!(two.is_pinned() && two.dma_buf().is_none() && !two.is_external());
    assert!(two.memfd().is_none(), "io_uring must not register it");
    write_to(&one, 1);
    write_to(&two, 2);
    assert_eq!(byte_at(&mem, first(&one)), 1);
    assert_eq!(byte_at(&mem, first(&two)), 2);

    // The name of another area over the same memory finds the same blocks in use.
    let other = format!("/dev/mem@{}+{page},sync", 0x2000_0000 + page);
    machine.refused(
        &other,
        &[
            "in use by other buffers of this process",
            &format!("0 of its {page} bytes"),
        ],
    );
    drop(one);
    let error = machine.block(&heap, 2, None).unwrap_err().to_string();
    let free = format!("{page} of its {} bytes are free", 3 * page);
    assert!(error.contains(&free), "{error}");
    assert_eq!(first(&machine.block(&heap, 1, None).unwrap()), 0x2000_0000);
    let error = machine.block(&heap, 4, None).unwrap_err().to_string();
    assert!(error.contains("are more than /dev/mem@"), "{error}");
}

#[test]
fn memory_above_the_limit_is_refused_before_it_is_mapped() {
    let machine = Machine::new();
    let page = page_size_bytes() as u64;
    let heap = format!("/dev/mem@0x21000000+{page}");
    // The file's absence would be the error of a mapping.
    fs::remove_file(machine.0.path().join("dev/mem")).unwrap();
    let error = machine.block(&heap, 1, Some(0x2100_0000)).unwrap_err();
    assert!(
        matches!(error, MemoryError::AboveMaxAddress { .. }),
        "{error}"
    );
    machine.refused(&heap, &["dev/mem", "ENOENT", "CONFIG_DEVMEM"]);
    machine.device("mem", 0x3000_0000);
    assert!(
        machine
            .block(&heap, 1, Some(0x2100_0000 + page - 1))
            .is_ok()
    );
}

#[test]
fn the_kernels_own_memory_is_refused_where_the_kernel_shows_it() {
    let machine = Machine::new();
    machine.refused(
        "/dev/mem@0x1f000000+32M",
        &["System RAM", "memmap=", "no-map"],
    );
    machine.write("proc/iomem", "00000000-00000000 : System RAM\n");
    assert!(machine.block("/dev/mem@0x1f000000+32M", 1, None).is_ok());
}

#[test]
fn a_missing_or_malformed_name_is_refused_with_the_forms() {
    let machine = Machine::new();
    let providers = named_area(MemoryKind::Region.info(), None).unwrap();
    let error = region(&providers[0], 4096, None).unwrap_err().to_string();
    assert!(
        error.contains("needs a heap") && error.contains("/dev/uio0:map0"),
        "{error}"
    );
    machine.refused(
        "/dev/mem",
        &["\"/dev/mem\"", "@ADDRESS+LENGTH", "resource2"],
    );
    machine.refused("/dev/udmabuf", &["kernel's own driver"]);
    machine.refused("/dev/mem@0xfffffffffffff000+8K", &["past the last address"]);
}

#[test]
fn a_device_that_is_closed_to_this_user_says_whose_it_is() {
    if nix::unistd::geteuid().is_root() {
        println!("SKIPPED: root may open every file");
        return;
    }
    let machine = Machine::new();
    let closed = fs::Permissions::from_mode(0o400);
    fs::set_permissions(machine.0.path().join("dev/mem"), closed).unwrap();
    machine.refused("/dev/mem@0x22000000+64K", &["EACCES", "only user"]);
}

/// The offset of a mapping is the number of the map, so blocks share the mapping of all of it.
#[test]
fn blocks_of_a_uio_map_lie_one_behind_the_other() {
    let machine = Machine::new();
    let page = page_size_bytes() as u64;
    let uio = machine.device("uio0", 16 * page);
    let map = "sys/class/uio/uio0/maps/map1/";
    machine.write(&format!("{map}addr"), "0x0000000a00000000\n");
    machine.write(&format!("{map}size"), &format!("{:#x}\n", 4 * page));
    machine.write(&format!("{map}offset"), "0x0\n");
    let one = machine.block("/dev/uio0:map1", 1, None).unwrap();
    let two = machine.block("/dev/uio0:map1", 2, None).unwrap();
    assert_eq!(first(&two), 0xa_0000_0000 + page);
    assert_eq!(two.address().unwrap().source(), AddressSource::Sysfs);
    assert_eq!(two.ptr() as usize - one.ptr() as usize, page as usize);
    write_to(&one, 1);
    write_to(&two, 2);
    assert_eq!((byte_at(&uio, page), byte_at(&uio, 2 * page)), (1, 2));
    // A part of the map, and the map's mapping after its first block has gone.
    drop(one);
    let part = format!("/dev/uio0:map1@{}+{page}", 3 * page);
    let three = machine.block(&part, 1, None).unwrap();
    assert_eq!(first(&three), 0xa_0000_0000 + 3 * page);
    write_to(&three, 3);
    write_to(&two, 4);
    assert_eq!((byte_at(&uio, 4 * page), byte_at(&uio, 2 * page)), (3, 4));
    machine.refused("/dev/uio0:map2", &["map2", "ENOENT"]);
}

#[test]
fn a_buffer_of_u_dma_buf_without_the_export_call_has_no_dma_buf() {
    let machine = Machine::new();
    let page = page_size_bytes() as u64;
    let device = machine.device("udmabuf0", 4 * page);
    let class = "sys/class/u-dma-buf/udmabuf0/";
    machine.write(&format!("{class}phys_addr"), "0x0000000b00000000\n");
    machine.write(&format!("{class}size"), &format!("{}\n", 4 * page));
    let part = format!("/dev/udmabuf0@{page}+{},sync", 2 * page);
    let region = machine.block(&part, 2, None).unwrap();
    assert_eq!(first(&region), 0xb_0000_0000 + page);
    write_to(&region, 5);
    assert_eq!(byte_at(&device, page), 5);
    assert!(region.dma_buf().is_none());
    assert!(may_have_dma_buf(Some(&part)) && !may_have_dma_buf(Some("/dev/uio0:map0")));
    assert!(!may_have_dma_buf(None));
}

#[test]
fn a_pci_region_is_mapped_from_its_own_file() {
    let machine = Machine::new();
    let page = page_size_bytes() as u64;
    let device = "sys/bus/pci/devices/0000:00:04.0/";
    let last = 0xc_0000_0000 + 4 * page - 1;
    let text = format!("0x0 0x0 0x0\n0x0 0x0 0x0\n0xc00000000 {last:#x} 0x14220c\n");
    machine.write(&format!("{device}resource"), &text);
    let name = format!("/{device}resource2_wc");
    machine.write(&name[1..], "");
    let path = machine.0.path().join(&name[1..]);
    let file = File::options().read(true).write(true).open(path).unwrap();
    file.set_len(4 * page).unwrap();
    let _one = machine.block(&name, 3, None).unwrap();
    let two = machine.block(&name, 1, None).unwrap();
    assert_eq!(first(&two), 0xc_0000_0000 + 3 * page);
    write_to(&two, 6);
    assert_eq!(byte_at(&file, 3 * page), 6);
}
