//! Measures the program from within: a loop that puts a frame's first bytes back, changes the client, and runs the program.
//!
//! `BPF_PROG_TEST_RUN` with a repeat count would show the program its own output from the second packet on, and a system
//! call a packet costs fifty times the packet. The method is that of the kernel's own `xdp-lb` benchmark. The loops
//! without a program show what the loop itself costs.

mod layout;

use core::ffi::c_void;

use aya_ebpf::{
    bindings::{xdp_action, xdp_md},
    btf_maps::Array,
    helpers::{bpf_ktime_get_ns, bpf_loop, bpf_xdp_adjust_head},
    macros::{btf_map, xdp},
    programs::XdpContext,
};
use lbha_common::{
    flow::side::{PRIVATE, PUBLIC},
    tail,
};

use crate::{
    access::{load, store, within},
    datapath,
    family::V4,
    first,
    maps::{INTERFACE_STATS, WORKSPACE4},
    verdict::{self, hand_to},
};

#[btf_map]
static BENCH: Array<layout::Value, 1> = Array::new();

/// The whole program, packets from the internet.
#[xdp]
pub fn lbha_bench_public(ctx: XdpContext) -> u32 {
    measure(&ctx, public as *mut c_void)
}

/// The whole program, packets from servers.
#[xdp]
pub fn lbha_bench_private(ctx: XdpContext) -> u32 {
    measure(&ctx, private as *mut c_void)
}

/// The loop alone.
#[xdp]
pub fn lbha_bench_nop(ctx: XdpContext) -> u32 {
    measure(&ctx, nop as *mut c_void)
}

/// The least that a program can do: look whether there is a header.
#[xdp]
pub fn lbha_bench_floor(ctx: XdpContext) -> u32 {
    measure(&ctx, floor as *mut c_void)
}

/// No loop: for a repeated BPF_PROG_TEST_RUN, the floor that other benchmarks state.
#[xdp]
pub fn lbha_bench_pass(_ctx: XdpContext) -> u32 {
    xdp_action::XDP_PASS
}

/// What a round knows. On the stack: the one place from which a callback gets a context pointer back as such.
#[repr(C)]
struct Loop {
    ctx: *mut xdp_md,
    bench: *mut layout::Value,
    actions: u64,
}

#[inline(always)]
fn measure(ctx: &XdpContext, body: *mut c_void) -> u32 {
    let Some(bench) = BENCH.get_ptr_mut(0) else {
        return xdp_action::XDP_ABORTED;
    };
    let mut state = Loop { ctx: ctx.ctx, bench, actions: 0 };
    // SAFETY: a map value; the callbacks have the signature that the helper asks for, and `state` outlives the call.
    unsafe {
        let count = (*bench)[layout::COUNT] as u32;
        let before = bpf_ktime_get_ns();
        let done = bpf_loop(count, body, (&raw mut state).cast(), 0);
        let after = bpf_ktime_get_ns();
        (*bench)[layout::NANOS] = after - before;
        (*bench)[layout::ACTIONS] = state.actions;
        (*bench)[layout::DONE] = done as u64;
    }
    xdp_action::XDP_PASS
}

macro_rules! rounds {
    ($($name:ident: $body:expr;)+) => {
        $(
            unsafe extern "C" fn $name(round: u32, state: *mut Loop) -> i64 {
                // SAFETY: `measure` waits for the loop that calls this.
                let state = unsafe { &mut *state };
                let ctx = XdpContext::new(state.ctx);
                if !prepare(&ctx, state.bench, round) {
                    return 1;
                }
                state.actions += u64::from($body(&ctx));
                0
            }
        )+
    };
}

rounds! {
    public: measured::<PUBLIC>;
    private: measured::<PRIVATE>;
    nop: |_: &XdpContext| xdp_action::XDP_PASS;
    floor: |ctx: &XdpContext| {
        if within(ctx.data(), 34, ctx.data_end()) { xdp_action::XDP_PASS } else { xdp_action::XDP_DROP }
    };
}

/// The whole program on one packet, its count included. A callback can't hand over to another program: the one for first
/// packets is called, others are not measured.
#[inline(always)]
fn measured<const SIDE: u8>(ctx: &XdpContext) -> u32 {
    let Some(stats) = INTERFACE_STATS.get_ptr_mut(u32::from(SIDE)) else {
        return xdp_action::XDP_ABORTED;
    };
    let mut verdict = datapath::begin::<V4, SIDE, false>(ctx, stats);
    if verdict == hand_to(tail::FIRST4)
        && let Some(work) = WORKSPACE4.get_ptr_mut(0)
    {
        // SAFETY: a per-CPU slot, and XDP programs do not nest.
        verdict = first::decide::<V4, false>(ctx, unsafe { &mut *work }, stats);
    }
    datapath::count(verdict, stats);
    verdict::action(verdict)
}

/// Puts the frame back as it was, from this round's client.
#[inline(always)]
fn prepare(ctx: &XdpContext, bench: *mut layout::Value, round: u32) -> bool {
    // SAFETY: a map value.
    let (length, start, clients) = unsafe {
        ((*bench)[layout::LENGTH], (*bench)[layout::START], (*bench)[layout::CLIENTS] as u32)
    };
    let moved = (ctx.data_end() - ctx.data()) as i32 - length as i32;
    // SAFETY: a valid context. Packet pointers are loaded below.
    if moved != 0 && unsafe { bpf_xdp_adjust_head(ctx.ctx, moved) } != 0 {
        return false;
    }
    let data = ctx.data();
    if !within(data, layout::HEADER, ctx.data_end()) {
        return false;
    }
    // SAFETY: in bounds, checked above; the map value has as many bytes. The widths are those of the header fields, so that
    // the program's loads find their bytes in one store: a load that needs two waits until both are in the cache.
    unsafe {
        let frame = (&raw const (*bench)[layout::FRAME]) as usize;
        store(data, load::<u32>(frame));
        store(data + 4, load::<u16>(frame + 4));
        store(data + 6, load::<u32>(frame + 6));
        store(data + 10, load::<u16>(frame + 10));
        store(data + 12, load::<u16>(frame + 12));
        store(data + 14, load::<u32>(frame + 14));
        store(data + 18, load::<u32>(frame + 18));
        store(data + 22, load::<u32>(frame + 22));
        store(data + 38, load::<u32>(frame + 38));
        store(data + 42, load::<u32>(frame + 42));
        store(data + 46, load::<u32>(frame + 46));
        store(data + 50, load::<u32>(frame + 50));
        store(data + 54, load::<u32>(frame + 54));
        let mut addresses = load::<u64>(frame + 26);
        let mut ports = load::<u32>(frame + 34);
        if clients != 0 {
            let turn = layout::turn((start as u32).wrapping_add(round), clients);
            let (address, port) = layout::client(turn);
            let high = u32::from(u16::from_be(load(frame + 26))) + address;
            let low = u32::from(u16::from_be(load(frame + 28))) - address;
            let source = u64::from((high << 16 | low).to_be());
            addresses = if cfg!(target_endian = "little") {
                addresses & !0xffff_ffff | source
            } else {
                addresses & 0xffff_ffff | source << 32
            };
            ports = (u32::from_be(ports) + (port << 16)).to_be();
        }
        store(data + 26, addresses);
        store(data + 34, ports);
    }
    true
}
