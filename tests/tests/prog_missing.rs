//! What becomes of packets when something is missing: a server, a route, an address, an interface, a program.

use aya::maps::{Map, MapData, ProgramArray};
use lbha::datapath::{
    desired::{Desired, Route},
    pins::map_path,
};
use lbha_common::{
    counter::Counter::{self, *},
    flow::side::{PRIVATE as SERVERS, PUBLIC as INTERNET},
    tail,
};
use lbha_tests::{packet::Frame, prog::*};

fn from_router(frame: Frame) -> Vec<u8> {
    frame.macs(ROUTER_MAC, PUBLIC_MAC).build()
}

/// Runs a frame from the internet that must be dropped without a trace.
#[track_caller]
fn drops(prog: &mut Prog, reason: Counter, frame: &[u8]) {
    let before = prog.state();
    prog.run(INTERNET, frame).dropped(reason);
    assert_eq!(prog.state(), before, "dropped packets leave no state");
}

fn changed(change: impl FnOnce(&mut Desired)) -> Prog {
    let mut desired = desired();
    change(&mut desired);
    Prog::with(&desired)
}

#[test]
fn an_interface_that_is_not_there_is_not_sent_to() {
    let mut desired = desired();
    let mut prog = Prog::with(&desired);
    let connection = prog.connect(client(0), vip());
    desired.interfaces[usize::from(SERVERS)].ifindex = 0;
    prog.apply(&desired);
    drops(&mut prog, DropRedirect, &from_router(connection.from_client()));
    desired.interfaces[usize::from(SERVERS)].ifindex = 1;
    prog.apply(&desired);
    prog.carries(&connection);
}

#[test]
fn without_a_source_address_nothing_is_translated() {
    let mut prog = changed(|desired| {
        www(desired).servers.iter_mut().for_each(|server| server.source = None);
    });
    drops(&mut prog, DropNoSource, &from_router(Frame::syn(client(0), vip())));
}

#[test]
fn a_service_without_servers_refuses() {
    let mut prog = changed(|desired| www(desired).slots.clear());
    drops(&mut prog, DropNoServer, &from_router(Frame::syn(client(0), vip())));
}

#[test]
fn a_client_without_a_route_back_is_refused() {
    let elsewhere = prefix("203.0.113.0/24");
    let mut prog = changed(|desired| {
        desired.routes.insert(elsewhere, Route::Unreachable);
    });
    drops(&mut prog, DropNoRoute, &from_router(Frame::syn(client(0), vip())));
    let mut prog = changed(|desired| {
        desired.routes.remove(&IpPrefix::DEFAULT_V4);
    });
    drops(&mut prog, DropNoRoute, &from_router(Frame::syn(client(0), vip())));
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
