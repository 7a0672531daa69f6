//! Programs that hand packets to each other: what becomes of a packet when the other one is missing.

use aya::maps::{Map, MapData, ProgramArray};
use lbha::datapath::pins::map_path;
use lbha_common::{counter::Counter::*, flow::side::PUBLIC as INTERNET, tail};
use lbha_tests::{packet::Frame, prog::*};

fn from_router(frame: Frame) -> Vec<u8> {
    frame.macs(ROUTER_MAC, PUBLIC_MAC).build()
}

/// Takes a program out of the array that packets are handed over by.
fn take_away(prog: &Prog, program: u32) {
    let map = MapData::from_pin(map_path(prog.pins().root(), "TAILS")).unwrap();
    let mut programs = ProgramArray::try_from(Map::from_map_data(map).unwrap()).unwrap();
    programs.clear_index(&program).unwrap();
}

#[test]
fn a_missing_program_lets_nothing_through_but_what_may_be_the_hosts_own() {
    let mut prog = Prog::new();
    let connections = [prog.connect(client(0), vip()), prog.connect(client6(0), vip6())];
    for program in [tail::FIRST4, tail::FIRST6, tail::ICMP4, tail::ICMP6, tail::FRAGMENT4] {
        take_away(&prog, program);
    }
    for syn in [Frame::syn(client(1), vip()), Frame::syn(client6(1), vip6())] {
        prog.public(syn).dropped(DropInternal);
    }
    let pings = [Frame::echo_request(CLIENT, VIP, 1, 1), Frame::echo_request(CLIENT6, VIP6, 1, 1)];
    for ping in pings {
        let ping = from_router(ping);
        prog.run(INTERNET, &ping).passed(PassIcmp, &ping);
    }
    let fragment = from_router(Frame::raw(CLIENT, VIP, UDP, &[0; 64]).fragment(8, false));
    prog.run(INTERNET, &fragment).passed(PassFragment, &fragment);
    assert_eq!((prog.flow_entries(), prog.half_open_entries()), (4, 0));
    for connection in connections {
        prog.carries(&connection);
    }
    take_away(&prog, tail::IPV6_PUBLIC);
    let frame = from_router(connections[1].from_client());
    prog.run(INTERNET, &frame).passed(PassIpv6, &frame);
}
