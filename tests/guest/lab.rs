// SPDX-License-Identifier: MPL-2.0
//! Tests of the lab itself, on which all other guest tests rely. Modules are named for the display
//! they need.

mod support;

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::process::Command;
use std::time::Duration;

use support::{Picture, oracle, require_lab};

const SYSFS_FB: &str = "/sys/class/graphics/fb0";

/// Writes bytes to the framebuffer at an offset by write(2), which needs no mapping.
fn write_framebuffer(bytes: &[u8], offset: u64) {
    let fb = OpenOptions::new()
        .write(true)
        .open("/dev/fb0")
        .expect("/dev/fb0 opens");
    fb.write_all_at(bytes, offset)
        .expect("the framebuffer takes the bytes");
}

fn sysfs_number(name: &str) -> usize {
    let text = std::fs::read_to_string(format!("{SYSFS_FB}/{name}")).expect("fb0 is in sysfs");
    text.trim().parse().expect("a number")
}

/// A picture in which neighbouring pixels of each row and column differ.
fn gradient(width: usize, height: usize) -> Picture {
    Picture::from_fn(width, height, |x, y| {
        [x as u8, y as u8, (x / 256 * 64 + y / 256 * 16) as u8]
    })
}

mod any {
    use super::*;

    #[test]
    fn oracle_sees_what_a_page_holds() {
        require_lab();
        let len = support::page_size();
        let mut bytes = vec![0u8; 3 * len];
        for (i, byte) in bytes.iter_mut().enumerate() {
            *byte = (i * 7 % 251) as u8;
        }
        let page = bytes.as_ptr().align_offset(len);
        let held = &bytes[page..page + len];
        assert_eq!(oracle().phys(support::pagemap_address(held), len), held);
    }

    #[test]
    fn oracle_sees_a_page_change() {
        require_lab();
        let mut bytes = vec![1u8; 4096];
        let address = support::pagemap_address(&bytes);
        let before = oracle().phys(address, 1);
        bytes[0] = 2;
        assert_eq!((before, oracle().phys(address, 1)), (vec![1], vec![2]));
    }

    #[test]
    fn oracle_reads_long_ranges_as_dev_mem_does() {
        require_lab();
        // The kernel's text, which is not written to.
        let (start, len) = (0x100_0000, 2 << 20);
        let mut expected = vec![0; len];
        let memory = File::open("/dev/mem").unwrap();
        let read = memory.read_exact_at(&mut expected, start);
        if support::is_stock_kernel() && read.is_err() {
            return support::skip("Debian builds this kernel with STRICT_DEVMEM");
        }
        read.unwrap();
        assert!(expected.iter().any(|&byte| byte != 0));
        assert!(
            oracle().phys(start, len) == expected,
            "physfile and /dev/mem differ"
        );
    }

    #[test]
    fn oracle_refuses_what_it_does_not_know() {
        require_lab();
        for request in [
            "frobnicate",
            "phys",
            "phys x 1",
            "physfile 0 1 ../escaped",
            "pixel 1",
        ] {
            assert!(oracle().ask(request).is_err(), "{request}");
        }
    }

    #[test]
    fn guest_clock_runs() {
        require_lab();
        let before = support::guest_clock();
        std::thread::sleep(Duration::from_millis(50));
        assert!(support::guest_clock() - before >= Duration::from_millis(50));
    }

    #[test]
    fn open_fds_counts_a_file() {
        require_lab();
        // Other tests of this process open files at the same time, so another process is counted.
        let count = |redirect| {
            let ran = support::run(Command::new("sh").args(["-c", redirect]));
            ran.expect_success().stdout.lines().count()
        };
        assert_eq!(
            count("ls /proc/self/fd 5</dev/null"),
            count("ls /proc/self/fd") + 1
        );
        assert!(support::open_fds() >= 3);
    }

    #[test]
    fn nobody_has_no_privilege_and_can_run_a_program() {
        require_lab();
        let ran =
            support::run(&mut support::as_nobody(Command::new("id").arg("-u"))).expect_success();
        assert_eq!(ran.stdout, "65534\n");
        let peek = support::as_nobody(Command::new("cat").arg("/dev/mem"))
            .output()
            .unwrap();
        assert!(!peek.status.success());
    }

    #[test]
    fn gst_launch_runs_a_stock_pipeline() {
        require_lab();
        let mut launch = Command::new("gst-launch-1.0");
        let ran = support::run(launch.args("videotestsrc num-buffers=3 ! fakesink".split(' ')));
        assert!(ran.expect_success().stdout.contains("Got EOS"));
    }
}

mod cirrus {
    use super::*;

    #[test]
    fn shot_is_the_framebuffer() {
        require_lab();
        let (width, height) = (640, 480);
        let stride = sysfs_number("stride");
        assert_eq!(sysfs_number("bits_per_pixel"), 24);
        let picture = gradient(width, height);
        for y in 0..height {
            let row: Vec<u8> = (0..width)
                .flat_map(|x| picture.pixel(x, y).into_iter().rev())
                .collect();
            write_framebuffer(&row, (y * stride) as u64);
        }
        oracle().shot().assert_same_as(&picture);
        assert_eq!(oracle().pixel(123, 45), picture.pixel(123, 45));
        assert!(oracle().ask("pixel 640 0").is_err());
    }
}

mod vkms {
    use super::*;
    use support::VkmsCrc;

    fn show(picture: &Picture) {
        let stride = sysfs_number("stride");
        for y in 0..picture.height {
            let row: Vec<u8> = (0..picture.width)
                .flat_map(|x| {
                    let [r, g, b] = picture.pixel(x, y);
                    [b, g, r, 0]
                })
                .collect();
            write_framebuffer(&row, (y * stride) as u64);
        }
    }

    #[test]
    fn crc_is_that_of_the_picture() {
        require_lab();
        for picture in [
            Picture::solid(1024, 768, [0x12, 0x34, 0x56]),
            gradient(1024, 768),
        ] {
            show(&picture);
            assert_eq!(
                format!("{:08x}", VkmsCrc::current()),
                format!("{:08x}", picture.vkms_crc())
            );
        }
    }

    #[test]
    fn crc_stream_counts_frames() {
        require_lab();
        let mut stream = VkmsCrc::open();
        let frames: Vec<_> = (0..10)
            .filter_map(|_| stream.next().expect("vkms scans out").frame)
            .collect();
        assert!(frames.len() >= 2, "{frames:?}");
        assert!(
            frames.is_sorted() && frames[0] < frames[frames.len() - 1],
            "{frames:?}"
        );
    }

    #[test]
    fn there_is_no_screen_to_photograph() {
        require_lab();
        assert!(oracle().ask("shot x").is_err());
    }
}
