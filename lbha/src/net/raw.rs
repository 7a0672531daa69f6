//! The packet socket that ARP requests leave from and replies come back to: the only unsafe code of this module.

use std::io;
use std::mem;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use tokio::io::unix::AsyncFd;

use super::arp::ARP_LEN;
use super::state::{IfIndex, Mac};

/// Non-blocking; bound to no device, so one socket serves all. Needs CAP_NET_RAW.
#[derive(Debug)]
pub struct ArpSocket(OwnedFd);

impl ArpSocket {
    /// Must be called within a tokio runtime.
    pub fn open() -> io::Result<AsyncFd<ArpSocket>> {
        // SAFETY: the `OwnedFd` is never replaced, and closed only when the `AsyncFd` drops it.
        unsafe { AsyncFd::register(Self::open_unregistered()?) }
            .map_err(|error| error.into_parts().1)
    }

    fn open_unregistered() -> io::Result<ArpSocket> {
        // With protocol 0 nothing is received until `bind`, when the filter is in place.
        // SOCK_DGRAM: the kernel writes and strips the Ethernet header.
        let kind = libc::SOCK_DGRAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
        // SAFETY: no pointers; the result is checked.
        let fd = check(unsafe { libc::socket(libc::AF_PACKET, kind, 0) })?;
        // SAFETY: `fd` is open, and nothing else owns it.
        let socket = ArpSocket(unsafe { OwnedFd::from_raw_fd(fd) });
        socket.attach_filter()?;
        let any = link_address(0, None);
        // SAFETY: `any` lives through the call, and the length is its size.
        check(unsafe { libc::bind(fd, (&raw const any).cast(), address_len()) })?;
        Ok(socket)
    }

    pub fn send(&self, ifindex: IfIndex, to: Mac, packet: &[u8; ARP_LEN]) -> io::Result<()> {
        let to = link_address(ifindex, Some(to));
        // SAFETY: both pointers are valid for the lengths given, through the call.
        let sent = unsafe {
            libc::sendto(
                self.as_raw_fd(),
                packet.as_ptr().cast(),
                packet.len(),
                0,
                (&raw const to).cast(),
                address_len(),
            )
        };
        if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// Reads one packet; returns the device that it came from and its length.
    pub fn receive(&self, buffer: &mut [u8]) -> io::Result<(IfIndex, usize)> {
        let mut from = link_address(0, None);
        let mut from_len = address_len();
        // SAFETY: `buffer` is valid for writes of its length, `from` for `from_len` bytes; the kernel writes no more.
        let received = unsafe {
            libc::recvfrom(
                self.as_raw_fd(),
                buffer.as_mut_ptr().cast(),
                buffer.len(),
                0,
                (&raw mut from).cast(),
                &raw mut from_len,
            )
        };
        match usize::try_from(received) {
            Ok(len) => Ok((from.sll_ifindex.cast_unsigned(), len)),
            Err(_) => Err(io::Error::last_os_error()),
        }
    }

    /// Has the kernel drop all but ARP replies to this host's own MAC address, as a broadcast domain's ARP noise would
    /// otherwise wake the daemon for nothing.
    fn attach_filter(&self) -> io::Result<()> {
        let load = libc::BPF_LD | libc::BPF_ABS;
        let equal = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
        let ret = libc::BPF_RET | libc::BPF_K;
        let packet_type = (libc::SKF_AD_OFF + libc::SKF_AD_PKTTYPE).cast_unsigned();
        let op = |code: u32, jt, jf, k| libc::sock_filter { code: code as u16, jt, jf, k };
        let mut program = [
            op(load | libc::BPF_B, 0, 0, packet_type),
            op(equal, 0, 3, u32::from(libc::PACKET_HOST)),
            op(load | libc::BPF_H, 0, 0, 6),
            op(equal, 0, 1, 2),
            op(ret, 0, 0, u32::MAX),
            op(ret, 0, 0, 0),
        ];
        let filter = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
        // SAFETY: `filter` points to `program`, both live through the call, and the kernel copies them.
        check(unsafe {
            libc::setsockopt(
                self.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_ATTACH_FILTER,
                (&raw const filter).cast(),
                mem::size_of_val(&filter) as libc::socklen_t,
            )
        })?;
        Ok(())
    }
}

impl AsRawFd for ArpSocket {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

impl AsFd for ArpSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

fn link_address(ifindex: IfIndex, mac: Option<Mac>) -> libc::sockaddr_ll {
    let mut sll_addr = [0; 8];
    sll_addr[..6].copy_from_slice(&mac.unwrap_or_default());
    libc::sockaddr_ll {
        sll_family: libc::AF_PACKET as u16,
        sll_protocol: (libc::ETH_P_ARP as u16).to_be(),
        sll_ifindex: ifindex.cast_signed(),
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 6,
        sll_addr,
    }
}

fn address_len() -> libc::socklen_t {
    mem::size_of::<libc::sockaddr_ll>() as libc::socklen_t
}

fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}
