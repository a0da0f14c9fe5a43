// SPDX-License-Identifier: MPL-2.0
//! QEMU's ramfb: a display whose only register is a physical address, set by way of
//! fw_cfg's DMA interface (x86 ports 0x510 to 0x51b; docs/specs/fw_cfg.rst).

use std::arch::asm;
use std::sync::Arc;

use gstphysmem::memory::{MemoryKind, Region, Request, wrap};

use crate::support::{Picture, oracle};

const SELECTOR: u16 = 0x510;
const DATA: u16 = 0x511;
const DMA_HIGH: u16 = 0x514;
const DMA_LOW: u16 = 0x518;
const FILE_DIR: u16 = 0x19;
const DMA_ERROR: u32 = 1 << 0;
const DMA_SELECT: u32 = 1 << 3;
const DMA_WRITE: u32 = 1 << 4;
const XRGB8888: u32 = u32::from_le_bytes(*b"XR24");

const WIDTH: usize = 320;
const HEIGHT: usize = 200;
const STRIDE: usize = WIDTH * 4;

fn outw(port: u16, value: u16) {
    // SAFETY: iopl(3) was granted; the ports used here are fw_cfg's.
    unsafe { asm!("out dx, ax", in("dx") port, in("ax") value) };
}

fn outl(port: u16, value: u32) {
    // SAFETY: as above.
    unsafe { asm!("out dx, eax", in("dx") port, in("eax") value) };
}

fn inb(port: u16) -> u8 {
    let value;
    // SAFETY: as above.
    unsafe { asm!("in al, dx", in("dx") port, out("al") value) };
    value
}

fn file_key(name: &str) -> Option<u16> {
    outw(SELECTOR, FILE_DIR);
    let count = u32::from_be_bytes(std::array::from_fn(|_| inb(DATA)));
    (0..count).find_map(|_| {
        // struct FWCfgFile: be32 size, be16 select, u16 reserved, char name[56]
        let entry: [u8; 64] = std::array::from_fn(|_| inb(DATA));
        let is_it = entry[8..].split(|&byte| byte == 0).next() == Some(name.as_bytes());
        is_it.then(|| u16::from_be_bytes([entry[4], entry[5]]))
    })
}

/// The device's control block, in memory with a known address.
struct Controller {
    block: Arc<Region>,
    key: u16,
}

impl Controller {
    fn new() -> Self {
        // SAFETY: asks for port access, for this thread.
        assert_eq!(unsafe { libc::iopl(3) }, 0, "root may use I/O ports");
        Self {
            block: contiguous(MemoryKind::Cma, 4096),
            key: file_key("etc/ramfb").expect("the machine has a ramfb (--display ramfb)"),
        }
    }

    /// Shows the picture at a physical address.
    fn scan_out(&self, phys: u64) {
        // struct FWCfgDmaAccess, all big-endian: control, length, address; the
        // configuration (address, fourcc, flags, width, height, stride) at 64.
        let own = self.block.address().expect("known").first().0;
        let mut config = Vec::new();
        config.extend(phys.to_be_bytes());
        for word in [XRGB8888, 0, WIDTH as u32, HEIGHT as u32, STRIDE as u32] {
            config.extend(word.to_be_bytes());
        }
        let mut dma = Vec::new();
        dma.extend((u32::from(self.key) << 16 | DMA_SELECT | DMA_WRITE).to_be_bytes());
        dma.extend((config.len() as u32).to_be_bytes());
        dma.extend((own + 64).to_be_bytes());
        self.write(0, &dma);
        self.write(64, &config);
        outl(DMA_HIGH, ((own >> 32) as u32).to_be());
        outl(DMA_LOW, (own as u32).to_be());
        // In QEMU the transfer is complete when the out instruction ends.
        let access = self.block.begin_access(false).expect("there");
        // SAFETY: the block is a page and starts with the control word.
        let control = u32::from_be(unsafe { access.ptr().cast::<u32>().read_volatile() });
        assert_eq!(control & DMA_ERROR, 0, "fw_cfg refuses");
        assert_eq!(control, 0, "the transfer is done");
    }

    fn write(&self, offset: usize, bytes: &[u8]) {
        let access = self.block.begin_access(true).expect("there");
        for (i, byte) in bytes.iter().enumerate() {
            // SAFETY: all writes lie in the first 128 bytes of a page.
            unsafe { access.ptr().add(offset + i).write_volatile(*byte) };
        }
    }
}

fn contiguous(kind: MemoryKind, size_bytes: usize) -> Arc<Region> {
    crate::allocate(&Request {
        kind,
        size_bytes,
        needs_contiguous: true,
        ..Default::default()
    })
}

/// Draws into two buffers in turn. The screen must show each one when the device gets its address.
pub fn shows_what_is_at_the_address(kind: MemoryKind) {
    let controller = Controller::new();
    let buffers = [(); 2].map(|()| contiguous(kind, STRIDE * HEIGHT));
    for (turn, region) in buffers.iter().cycle().take(4).enumerate() {
        let picture = Picture::from_fn(WIDTH, HEIGHT, |x, y| [x as u8, y as u8, turn as u8 * 60]);
        draw(region, &picture);
        let address = region.address().expect("root sees addresses");
        assert!(address.is_contiguous());
        controller.scan_out(address.first().0);
        oracle().shot().assert_same_as(&picture);
    }
}

fn draw(region: &Arc<Region>, picture: &Picture) {
    let mut mem = wrap(region, 0, STRIDE * HEIGHT, None);
    let mem = mem.get_mut().expect("a new memory has one owner");
    let mut map = mem.map_writable().expect("mapped");
    for (pixel, rgb) in map.chunks_exact_mut(4).zip(picture.rgb.chunks_exact(3)) {
        pixel.copy_from_slice(&[rgb[2], rgb[1], rgb[0], 0]);
    }
}
