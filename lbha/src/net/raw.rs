//! Packet sockets: those that questions to neighbours leave from and answers come back to, and one that sends whole
//! frames. The only unsafe code of this module.

use std::io;
use std::mem;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use tokio::io::unix::AsyncFd;

use super::state::{IfIndex, Mac};

/// What a socket sends and receives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// Receives ARP replies.
    Arp,
    /// Receives neighbour advertisements, with their IPv6 headers.
    Ndp,
}

/// Non-blocking; bound to no device, so one socket serves all. Needs CAP_NET_RAW.
#[derive(Debug)]
pub struct PacketSocket {
    fd: OwnedFd,
    protocol: Protocol,
}

impl PacketSocket {
    /// Must be called within a tokio runtime.
    pub fn open(protocol: Protocol) -> io::Result<AsyncFd<PacketSocket>> {
        // SAFETY: the `OwnedFd` is never replaced, and closed only when the `AsyncFd` drops it.
        unsafe { AsyncFd::register(Self::open_unregistered(protocol)?) }
            .map_err(|error| error.into_parts().1)
    }

    fn open_unregistered(protocol: Protocol) -> io::Result<PacketSocket> {
        // With protocol 0 nothing is received until `bind`, when the filter is in place.
        // SOCK_DGRAM: the kernel writes and strips the Ethernet header.
        let kind = libc::SOCK_DGRAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
        let socket = PacketSocket { fd: socket(kind)?, protocol };
        socket.attach_filter()?;
        let any = protocol.link_address(0, None);
        // SAFETY: `any` lives through the call, and the length is its size.
        check(unsafe { libc::bind(socket.as_raw_fd(), (&raw const any).cast(), address_len()) })?;
        Ok(socket)
    }

    pub fn send(&self, ifindex: IfIndex, to: Mac, packet: &[u8]) -> io::Result<()> {
        send_to(&self.fd, packet, &self.protocol.link_address(ifindex, Some(to)))
    }

    /// Reads one packet; returns the device that it came from and its length.
    pub fn receive(&self, buffer: &mut [u8]) -> io::Result<(IfIndex, usize)> {
        let mut from = self.protocol.link_address(0, None);
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

    /// Has the kernel drop all but answers to this host's own MAC address: a broadcast domain's ARP noise, not to speak
    /// of all IPv6 packets, would otherwise wake the daemon for nothing.
    fn attach_filter(&self) -> io::Result<()> {
        let mut program = self.protocol.filter();
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

/// Sends frames as they are, and receives none. Needs CAP_NET_RAW.
#[derive(Debug)]
pub struct FrameSender(OwnedFd);

impl FrameSender {
    pub fn open() -> io::Result<Self> {
        Ok(Self(socket(libc::SOCK_RAW | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK)?))
    }

    /// Sends a frame, its Ethernet header included, out of a device.
    pub fn send(&self, ifindex: IfIndex, frame: &[u8]) -> io::Result<()> {
        let Some(&ethertype) = frame.get(12..).and_then(<[u8]>::first_chunk) else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        send_to(&self.0, frame, &link_address(u16::from_be_bytes(ethertype), ifindex, None))
    }
}

impl AsRawFd for PacketSocket {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

impl AsFd for PacketSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Protocol {
    /// A classic BPF program. Offsets are those behind the Ethernet header.
    fn filter(self) -> Vec<libc::sock_filter> {
        let op = |code: u32, jt, jf, k| libc::sock_filter { code: code as u16, jt, jf, k };
        let load = |size: u32, offset| op(libc::BPF_LD | libc::BPF_ABS | size, 0, 0, offset);
        let packet_type = (libc::SKF_AD_OFF + libc::SKF_AD_PKTTYPE).cast_unsigned();
        let mut tests = vec![(load(libc::BPF_B, packet_type), u32::from(libc::PACKET_HOST))];
        match self {
            // The operation: a reply.
            Protocol::Arp => tests.push((load(libc::BPF_H, 6), 2)),
            // The next header with the hop limit, and the type of the ICMPv6 message.
            Protocol::Ndp => {
                tests.extend([(load(libc::BPF_H, 6), 58 << 8 | 255), (load(libc::BPF_B, 40), 136)]);
            }
        }
        let mut program = Vec::new();
        let count = tests.len();
        for (i, (load, expected)) in tests.into_iter().enumerate() {
            // To the last instruction, over the tests that follow and the instruction that accepts.
            let refuse = (2 * (count - 1 - i) + 1) as u8;
            program.push(load);
            program.push(op(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, refuse, expected));
        }
        program.push(op(libc::BPF_RET | libc::BPF_K, 0, 0, u32::MAX));
        program.push(op(libc::BPF_RET | libc::BPF_K, 0, 0, 0));
        program
    }

    fn link_address(self, ifindex: IfIndex, mac: Option<Mac>) -> libc::sockaddr_ll {
        let ethertype = match self {
            Protocol::Arp => libc::ETH_P_ARP,
            Protocol::Ndp => libc::ETH_P_IPV6,
        };
        link_address(ethertype as u16, ifindex, mac)
    }
}

fn link_address(ethertype: u16, ifindex: IfIndex, mac: Option<Mac>) -> libc::sockaddr_ll {
    let mut sll_addr = [0; 8];
    sll_addr[..6].copy_from_slice(&mac.unwrap_or_default());
    libc::sockaddr_ll {
        sll_family: libc::AF_PACKET as u16,
        sll_protocol: ethertype.to_be(),
        sll_ifindex: ifindex.cast_signed(),
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 6,
        sll_addr,
    }
}

/// With protocol 0: nothing is received until `bind`.
fn socket(kind: libc::c_int) -> io::Result<OwnedFd> {
    // SAFETY: no pointers; the result is checked.
    let fd = check(unsafe { libc::socket(libc::AF_PACKET, kind, 0) })?;
    // SAFETY: `fd` is open, and nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn send_to(socket: &OwnedFd, bytes: &[u8], to: &libc::sockaddr_ll) -> io::Result<()> {
    // SAFETY: both pointers are valid for the lengths given, through the call.
    let sent = unsafe {
        libc::sendto(
            socket.as_raw_fd(),
            bytes.as_ptr().cast(),
            bytes.len(),
            0,
            core::ptr::from_ref(to).cast(),
            address_len(),
        )
    };
    if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn address_len() -> libc::socklen_t {
    mem::size_of::<libc::sockaddr_ll>() as libc::socklen_t
}

fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}
