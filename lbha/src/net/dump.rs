//! Reads the kernel's tables: the requests behind a snapshot of [`NetState`].

use std::io;

use futures_util::StreamExt;
use netlink_packet_route::address::AddressMessage;
use netlink_packet_route::link::{LinkAttribute, LinkExtentMask, LinkMessage};
use netlink_packet_route::neighbour::NeighbourMessage;
use netlink_packet_route::route::RouteMessage;
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use rtnetlink::Handle;
use rtnetlink::packet_core::{
    NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload,
};
use tracing::debug;

use super::decode;
use super::monitor::MonitorError;
use super::state::{Event, NetState};

/// Reads all tables, links first: everything else refers to them. A kernel without IPv6 answers for that family with
/// what it has for all of them, which says nothing new.
pub(super) async fn dump(requests: Handle) -> Result<NetState, MonitorError> {
    let mut links = LinkMessage::default();
    // Statistics are most of a link's message, and of no use here.
    links.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
    let mut state = NetState::default();
    let mut tables = vec![("interfaces", RouteNetlinkMessage::GetLink(links))];
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        let mut addresses = AddressMessage::default();
        addresses.header.family = family;
        let mut neighbours = NeighbourMessage::default();
        neighbours.header.family = family;
        let mut routes = RouteMessage::default();
        routes.header.address_family = family;
        tables.extend([
            ("addresses", RouteNetlinkMessage::GetAddress(addresses)),
            ("neighbours", RouteNetlinkMessage::GetNeighbour(neighbours)),
            ("routes", RouteNetlinkMessage::GetRoute(routes)),
        ]);
    }
    for (table, request) in tables {
        let events = dump_table(&requests, request)
            .await
            .map_err(|source| MonitorError::Dump { table, source })?;
        for (i, event) in events.into_iter().enumerate() {
            state.apply(event);
            breathe(i).await;
        }
    }
    Ok(state)
}

async fn dump_table(requests: &Handle, table: RouteNetlinkMessage) -> io::Result<Vec<Event>> {
    let mut events = Vec::new();
    for _ in 0..DUMP_ATTEMPTS {
        events.clear();
        let mut request = NetlinkMessage::from(table.clone());
        request.header.flags = NLM_F_REQUEST | NLM_F_DUMP;
        let mut answers = requests.clone().request(request).map_err(io::Error::other)?;
        let mut interrupted = false;
        let mut done = false;
        let mut count = 0;
        while let Some(answer) = answers.next().await {
            count += 1;
            breathe(count).await;
            interrupted |= answer.header.flags & NLM_F_DUMP_INTR != 0;
            match answer.payload {
                NetlinkPayload::InnerMessage(message) => events.extend(decode::dumped(&message)),
                NetlinkPayload::Done(end) if end.code < 0 => {
                    return Err(io::Error::from_raw_os_error(-end.code));
                }
                NetlinkPayload::Done(_) => done = true,
                NetlinkPayload::Error(error) if error.code.is_some() => return Err(error.to_io()),
                _ => {}
            }
        }
        if !done {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if !interrupted {
            return Ok(events);
        }
    }
    // Entries may be missing that nobody touched while others came and went.
    debug!("the kernel's tables changed during every attempt to read them");
    Ok(events)
}

/// Lets events through now and then while a big table is read.
async fn breathe(count: usize) {
    if count.is_multiple_of(1024) {
        tokio::task::yield_now().await;
    }
}

const DUMP_ATTEMPTS: usize = 8;
