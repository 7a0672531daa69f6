//! Has the program go on with frames that it gave to the controller.
//!
//! It runs on them through BPF_PROG_TEST_RUN. What it translates goes out by a packet socket: the kernel's own way to send
//! from such a run needs native XDP on the way out, and a frame that fits one page. What it leaves to the kernel has to
//! take that way, there is no other into the kernel's input.

use aya::programs::{ProgramError, TestRun as _, TestRunAttrs, TestRunOptions, Xdp};

/// What the program has made of a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The frame as it goes out of the interface that it came in on.
    Back(Vec<u8>),
    /// The frame as it goes out of the other interface.
    Across(Vec<u8>),
    Dropped,
    /// Left to the kernel. It has not got it yet.
    Passed,
}

/// `enum xdp_action` in `include/uapi/linux/bpf.h`.
mod action {
    pub const PASS: u32 = 2;
    pub const TX: u32 = 3;
    pub const REDIRECT: u32 = 4;
}

/// Bytes that a frame may grow by: the tags and headers of an ICMP error that comes in its place.
const GROWTH: usize = 128;

/// Runs the program, which counts the frame, and sends nothing.
pub fn run(program: &Xdp, frame: &[u8]) -> Result<Verdict, ProgramError> {
    let mut out = vec![0; frame.len() + GROWTH];
    let result = program.test_run(TestRunOptions {
        data_in: Some(frame),
        data_out: Some(&mut out),
        ..TestRunOptions::new()
    })?;
    out.truncate(result.data_size_out as usize);
    Ok(match result.return_value {
        action::TX => Verdict::Back(out),
        action::REDIRECT => Verdict::Across(out),
        action::PASS => Verdict::Passed,
        _ => Verdict::Dropped,
    })
}

/// Runs the program on a frame as if it had just come in on an interface. If the program leaves it to the kernel, the
/// kernel gets it. The frame must fit one page, with what the kernel keeps there besides.
pub fn pass(program: &Xdp, ifindex: u32, frame: &[u8]) -> Result<(), ProgramError> {
    // struct xdp_md: data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex
    let words = [0, frame.len() as u32, 0, ifindex, 0, 0];
    let context: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
    program
        .test_run(TestRunOptions {
            data_in: Some(frame),
            ctx_in: Some(&context),
            attrs: TestRunAttrs::new().xdp_live_frames(1),
            ..TestRunOptions::new()
        })
        .map(drop)
}
