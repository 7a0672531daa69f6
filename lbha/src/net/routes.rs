//! The routes of one prefix and metric, in the order in which the kernel prefers them; pure.
//!
//! The families differ. IPv4 has a list, whose first route is used, and the message of a new route says where it goes in
//! that list. IPv6 makes one multipath route of all routes that can be ([`Route::joins`]), whatever command brought them:
//!
//! - RTM_NEWROUTE has all its next hops, the newest first, or those of the command first: the message that a next hop
//!   was added is a message of the whole route.
//! - RTM_DELROUTE has the one next hop that goes, or all of them when the whole route goes.
//! - A replacement takes the place of a route of its own sort with all of that one's next hops, for which there is no
//!   other message.
//!
//! What cannot be joined (no gateway, a router's advertisement, a nexthop object) stands beside it as in IPv4.

use super::state::{Placement, Route};

/// fib_table_insert in net/ipv4/fib_trie.c.
pub(super) fn insert_v4(list: &mut Vec<Route>, route: Route, placement: Placement) {
    // The kernel refuses exact duplicates, so this one is a replay.
    if list.contains(&route) && (placement != Placement::Replace || list[0] == route) {
        return;
    }
    match placement {
        Placement::Replace if !list.is_empty() => replace(list, 0, route),
        Placement::First => list.insert(0, route),
        Placement::Replace | Placement::Last => list.push(route),
    }
}

/// fib6_add_rt2node in net/ipv6/ip6_fib.c.
pub(super) fn insert_v6(list: &mut Vec<Route>, route: Route, placement: Placement) {
    let same_sort = list.iter().position(|known| known.joins == route.joins);
    if placement == Placement::Replace && !list.is_empty() {
        return replace(list, same_sort.unwrap_or(0), route);
    }
    if route.joins
        && let Some(known) = same_sort.map(|at| &mut list[at])
    {
        // In the order of the kernel's list, in which the newest is last: this is how a dump has them.
        known.next_hops.retain(|hop| route.next_hops.contains(hop));
        for hop in route.next_hops {
            if !known.next_hops.contains(&hop) {
                known.next_hops.push(hop);
            }
        }
        known.preferred_source = route.preferred_source;
        return;
    }
    if !list.contains(&route) {
        // rt6_score_route: the preference decides, then the order.
        let place = list.iter().take_while(|known| known.preference >= route.preference).count();
        list.insert(place, route);
    }
}

/// fib6_del_route. A route's source and preference may have changed without a message.
pub(super) fn remove_v6(list: &mut Vec<Route>, route: &Route) {
    list.retain_mut(|known| {
        if known.kind != route.kind || known.joins != route.joins {
            return true;
        }
        known.next_hops.retain(|hop| !route.next_hops.contains(hop));
        !known.next_hops.is_empty()
    });
}

/// Puts the route in a place, and takes it out of any other.
fn replace(list: &mut Vec<Route>, at: usize, route: Route) {
    list[at] = route.clone();
    let mut seen = false;
    list.retain(|known| *known != route || !std::mem::replace(&mut seen, true));
}
