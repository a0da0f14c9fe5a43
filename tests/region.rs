// SPDX-License-Identifier: MPL-2.0
//! Kind region from the command line and from Python. The programs run in a mount namespace, where files
//! stand for /dev/mem, /dev/uio0, /dev/udmabuf0 and what the kernel says of them.

mod common;

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use common::{output_of, page_size, root, with_plugin};

/// Stand-ins in a directory that a script mounts over the real files.
struct Machine(tempfile::TempDir);

const MAP: &str = "sys/class/uio/uio0/maps/map1";
const U_DMA_BUF: &str = "sys/class/u-dma-buf/udmabuf0";

impl Machine {
    fn new() -> Self {
        let machine = Self(tempfile::tempdir().unwrap());
        machine.write(
            "iomem",
            "00001000-1fffffff : System RAM\n20000000-2fffffff : Reserved\n",
        );
        machine.write(&format!("{MAP}/addr"), "0x00000000a0000000\n");
        machine.write(&format!("{MAP}/size"), "0x0000000000100000\n");
        machine.write(&format!("{MAP}/offset"), "0x0\n");
        machine.write(&format!("{U_DMA_BUF}/phys_addr"), "0x000000001f900000\n");
        machine.write(&format!("{U_DMA_BUF}/size"), "1048576\n");
        for (device, len_bytes) in [
            ("mem", 0x3000_0000),
            ("uio0", 2 << 20),
            ("udmabuf0", 1 << 20),
        ] {
            let path = machine.path(&format!("dev/{device}"));
            machine.write(&format!("dev/{device}"), "");
            std::fs::File::options()
                .write(true)
                .open(path)
                .unwrap()
                .set_len(len_bytes)
                .unwrap();
        }
        machine
    }

    fn path(&self, file: &str) -> PathBuf {
        self.0.path().join(file)
    }

    fn write(&self, file: &str, text: &str) {
        std::fs::create_dir_all(self.path(file).parent().unwrap()).unwrap();
        std::fs::write(self.path(file), text).unwrap();
    }

    /// A program that finds the stand-ins. `None` if this machine does not allow a mount namespace.
    fn command(&self, program: &str) -> Option<Command> {
        let directory = self.0.path().display();
        let user = match nix::unistd::geteuid().is_root() {
            true => &[][..],
            false => &["--user", "--map-root-user"],
        };
        // The programs need nothing else of /dev than these.
        let script = format!(
            "for i in null zero urandom shm; do touch {directory}/dev/$i; done; \
             mount --bind /dev/null {directory}/dev/null && \
             mount --bind /dev/urandom {directory}/dev/urandom && \
             mount --rbind {directory}/dev /dev && \
             mount --rbind {directory}/sys /sys && \
             mount --bind {directory}/iomem /proc/iomem && exec \"$@\""
        );
        let unshare = |command: &mut Command, script: &str| {
            command
                .args(user)
                .args(["--mount", "sh", "-c", script, "sh"]);
        };
        let mut trial = Command::new("unshare");
        unshare(&mut trial, &script);
        if !trial
            .arg("true")
            .output()
            .is_ok_and(|ran| ran.status.success())
        {
            println!("SKIPPED: no mount namespaces here");
            return None;
        }
        let mut command = with_plugin("unshare");
        unshare(&mut command, &script);
        command.arg(program);
        Some(command)
    }

    fn bytes(&self, device: &str, offset: u64, len: usize) -> Vec<u8> {
        use std::os::unix::fs::FileExt;
        let mut bytes = vec![0; len];
        let file = std::fs::File::open(self.path(&format!("dev/{device}"))).unwrap();
        file.read_exact_at(&mut bytes, offset).unwrap();
        bytes
    }
}

fn launch(machine: &Machine, pipeline: &str) -> Option<Command> {
    let mut command = machine.command("timeout")?;
    command
        // After an error, gst-launch 1.22 now and then waits for ever for the end of the stream.
        .args(["20", "gst-launch-1.0"])
        .args(pipeline.split_whitespace())
        .env_remove("G_DEBUG");
    Some(command)
}

#[test]
fn a_pipeline_writes_where_the_heap_says() {
    let machine = Machine::new();
    let frame: Vec<u8> = (0..64 * 64).map(|i| (i % 251) as u8).collect();
    let file = machine.path("frame.raw");
    std::fs::write(&file, &frame).unwrap();
    let map = page_size() as u64;
    for (heap, device, offset) in [
        ("/dev/mem@0x20000000+1M", "mem", 0x2000_0000),
        ("/dev/mem@0x20100000+1M,sync", "mem", 0x2010_0000),
        // A regular file takes the number of the map for an offset, too.
        ("/dev/uio0:map1", "uio0", map),
        ("/dev/udmabuf0@512K+64K", "udmabuf0", 512 << 10),
    ] {
        let pipeline = format!(
            "rawvideosrc location={} format=gray8 width=64 height=64 framerate=25/1 ! \
             physmemupload kind=region heap={heap} ! fakesink sync=false",
            file.display()
        );
        let Some(mut command) = launch(&machine, &pipeline) else {
            return;
        };
        output_of(&mut command);
        assert!(
            machine.bytes(device, offset, frame.len()) == frame,
            "{heap}"
        );
    }
}

#[test]
fn a_source_reads_into_memory_that_the_heap_names() {
    const FRAME: usize = 64 * 64;
    let machine = Machine::new();
    let frames: Vec<u8> = (0..3 * FRAME).map(|i| (i % 251) as u8).collect();
    let file = machine.path("frames.raw");
    std::fs::write(&file, &frames).unwrap();
    let run = |heap: &str| {
        let pipeline = format!(
            "rawvideosrc location={} format=gray8 width=64 height=64 framerate=25/1 \
             memory-kind=region heap={heap} ! fakesink sync=false",
            file.display()
        );
        let ran = launch(&machine, &pipeline)?.output().unwrap();
        let said = String::from_utf8_lossy(&ran.stderr).into_owned();
        Some((ran.status.success(), said))
    };
    // The source needs more buffers than one.
    let page = page_size();
    let Some((is_fine, said)) = run(&format!("/dev/udmabuf0@0+{page}")) else {
        return;
    };
    let words = format!("is in use by other buffers of this process: 0 of its {page} bytes");
    assert!(!is_fine && said.contains(&words), "{said}");
    let (is_fine, said) = run("/dev/udmabuf0").unwrap();
    assert!(is_fine, "{said}");
    let memory = machine.bytes("udmabuf0", 0, 1 << 20);
    let last = &frames[2 * FRAME..];
    assert!(
        memory
            .chunks_exact(page)
            .any(|block| block.starts_with(last))
    );
}

#[test]
fn a_pipeline_says_why_the_memory_is_refused() {
    let machine = Machine::new();
    for (heap, words) in [
        (
            "/dev/mem@0x1f000000+32M",
            "overlaps the System RAM of /proc/iomem",
        ),
        (
            "/dev/mem@0x20000000+64K",
            " are more than /dev/mem@0x20000000+64K has: 65536 bytes",
        ),
        ("/dev/mem@0x20000000", "the length must follow"),
        ("/dev/udmabuf", "is the kernel's own driver"),
        ("/dev/uio0:map0", "/sys/class/uio/uio0/maps/map0: "),
        ("/dev/uio0:map0", "No such file or directory (ENOENT)"),
        ("/dev/udmabuf0@0+2M", "has 1048576 bytes"),
    ] {
        let pipeline = format!(
            "videotestsrc num-buffers=2 ! video/x-raw,format=GRAY8,width=512,height=512 ! \
             physmemupload kind=region heap={heap} ! fakesink sync=false"
        );
        let Some(mut command) = launch(&machine, &pipeline) else {
            return;
        };
        let ran = command.output().unwrap();
        let said = String::from_utf8_lossy(&ran.stderr);
        assert!(
            !ran.status.success() && said.contains(words),
            "{heap}: no {words:?} in\n{said}"
        );
    }
}

fn python(machine: &Machine, script: &Path, arguments: &[&str]) -> Option<String> {
    let mut command = machine.command("/usr/bin/python3")?;
    command.arg(script).args(arguments).env_remove("G_DEBUG");
    Some(output_of(&mut command))
}

#[test]
fn python_has_a_pool_and_an_allocator_of_such_memory() {
    let machine = Machine::new();
    let pool = root().join("examples/python/pool.py");
    let Some(out) = python(&machine, &pool, &["region", "/dev/mem@0x20000000+1M"]) else {
        return;
    };
    // A pool hands the buffer that it made last out first.
    let second = 0x2000_0000 + page_size() as u64;
    assert!(out.contains(&format!(" is at {second:#x}\n")), "{out}");
    assert_eq!(machine.bytes("mem", second, 5), b"frame");

    machine.write(
        "allocator.py",
        "import gi, mmap\n\
         gi.require_version('Gst', '1.0')\n\
         from gi.repository import GObject, Gst\n\
         Gst.init(None)\n\
         Gst.Plugin.load_by_name('physmem')\n\
         page = mmap.PAGESIZE\n\
         heap = f'/dev/uio0:map1@64K+{2 * page}'\n\
         allocator = GObject.new(GObject.type_from_name('GstPhysMemAllocator'), heap=heap)\n\
         assert allocator.props.heap == heap\n\
         memory = [allocator.alloc(page, None) for _ in range(2)]\n\
         assert all(memory), memory\n\
         assert allocator.alloc(page, None) is None\n\
         buffer = Gst.Buffer.new()\n\
         buffer.append_memory(memory[1])\n\
         assert buffer.fill(0, b'allocated') == 9\n\
         named = Gst.Allocator.find('PhysMemRegion')\n\
         assert named.alloc(page, None) is None\n",
    );
    python(&machine, &machine.path("allocator.py"), &[]);
    let at = 2 * page_size() as u64 + (64 << 10);
    assert_eq!(machine.bytes("uio0", at, 9), b"allocated");
}
