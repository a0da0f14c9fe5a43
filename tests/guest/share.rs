// SPDX-License-Identifier: MPL-2.0
//! Two processes and one pool: the example share, whose processes are killed in turn.

mod support;

use std::{
    io::{BufRead, BufReader, Read},
    process::{Child, ChildStdout, Command, ExitStatus, Stdio},
};

use support::{require_lab, run};

const BUFFERS: &str = "4";

fn share(arguments: &[&str]) -> Command {
    let mut command = Command::new(support::example("share"));
    command.args(arguments).stdin(Stdio::null());
    command
}

/// One of the two processes, which is killed on drop.
struct ExampleProcess {
    child: Child,
    stdout: BufReader<ChildStdout>,
    said: String,
}

impl ExampleProcess {
    fn start(arguments: &[&str]) -> Self {
        let mut child = share(arguments)
            .stdout(Stdio::piped())
            .spawn()
            .expect("the example starts");
        let stdout = BufReader::new(child.stdout.take().expect("piped"));
        Self {
            child,
            stdout,
            said: String::new(),
        }
    }

    /// Reads lines until one contains these words.
    #[track_caller]
    fn read_until(&mut self, words: &str) {
        loop {
            let mut line = String::new();
            let len = self.stdout.read_line(&mut line).expect("UTF-8");
            assert!(len > 0, "it ended and never said {words:?}:\n{}", self.said);
            self.said += &line;
            if line.contains(words) {
                return;
            }
        }
    }

    fn kill(&mut self) {
        self.child.kill().expect("SIGKILL");
        self.child.wait().expect("it ran");
    }

    /// Waits for the end: the exit status and all that the process printed.
    fn end(&mut self) -> (ExitStatus, &str) {
        self.stdout.read_to_string(&mut self.said).expect("UTF-8");
        (self.child.wait().expect("it ran"), &self.said)
    }
}

impl Drop for ExampleProcess {
    fn drop(&mut self) {
        // The process may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[track_caller]
fn either_side_may_die(kind: &str) {
    require_lab();
    let socket = format!("/run/share-{kind}");
    let mut producer =
        ExampleProcess::start(&["produce", &socket, "--kind", kind, "--buffers", BUFFERS]);
    producer.read_until("listening");

    // A consumer that keeps every buffer and is killed.
    let mut hung = ExampleProcess::start(&["consume", &socket, "--keep-all"]);
    hung.read_until("holding 4 buffers");
    hung.kill();
    producer.read_until("consumer 1 is gone: 4 buffers taken back");

    // The next consumer gets each of the four buffers again and again.
    let ran = run(&mut share(&["consume", &socket, "--frames", "40"])).expect_success();
    let whole = "40 frames in 4 buffers, every byte right; 1 held to the end and still right";
    assert!(ran.stdout.contains(whole), "{ran:?}");
    producer.read_until("consumer 2 is gone");

    // A consumer that is killed while it reads frames.
    let mut busy = ExampleProcess::start(&["consume", &socket]);
    busy.read_until("the first frame is right");
    busy.kill();
    producer.read_until("consumer 3 is gone");

    // The producer is killed while a consumer has a buffer; the consumer's mapping remains valid.
    let mut last = ExampleProcess::start(&["consume", &socket]);
    last.read_until("the first frame is right");
    producer.kill();
    let (status, said) = last.end();
    assert!(status.success(), "{status}\n{said}");
    assert!(said.contains("the producer is gone"), "{said}");
    assert!(said.contains("1 held to the end and still right"), "{said}");
}

mod any {
    use super::*;

    #[test]
    fn either_side_may_die_with_cma() {
        if !support::cannot_run_without(support::CMA_HEAPS) {
            either_side_may_die("cma");
        }
    }

    #[test]
    fn either_side_may_die_with_udmabuf() {
        if !support::cannot_run_without(&["/dev/udmabuf"]) {
            either_side_may_die("udmabuf");
        }
    }

    #[test]
    fn either_side_may_die_with_system() {
        if !support::cannot_run_without(&["/dev/dma_heap/system"]) {
            either_side_may_die("system");
        }
    }

    #[test]
    fn memory_without_a_dma_buf_is_refused_in_words() {
        require_lab();
        let ran = run(&mut share(&[
            "produce",
            "/run/share-normal",
            "--kind",
            "normal",
        ]));
        assert_eq!(ran.status.code(), Some(1), "{ran:?}");
        let words = "memory of kind normal has no dma-buf: use kind cma, system or udmabuf";
        assert!(ran.stderr.contains(words), "{ran:?}");
    }
}
