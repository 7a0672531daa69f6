//! Frames on an interface: sent as they are, and received as they come.

use std::{
    collections::HashSet,
    io::IoSliceMut,
    os::fd::{AsFd as _, AsRawFd as _, OwnedFd},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use nix::{
    errno::Errno,
    ifaddrs::getifaddrs,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::socket::{
        AddressFamily, LinkAddr, MsgFlags, SockFlag, SockProtocol, SockType, bind, recvmsg, sendto,
        setsockopt, socket, sockopt,
    },
};

use crate::{
    netns::Netns,
    packet::{Parsed, parse},
};

/// A packet socket on one interface.
///
/// The kernel takes VLAN tags off what it receives, and merges segments on an interface with GRO.
#[derive(Debug)]
pub struct Wire {
    socket: OwnedFd,
    link: LinkAddr,
    name: String,
}

/// Which way a frame went.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Direction {
    In,
    Out,
}

impl Wire {
    /// From here on, frames of the interface are kept until they are received.
    pub fn open(namespace: &Netns, interface: &str) -> Result<Self> {
        let open = || -> Result<Self> {
            let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
            let addresses = getifaddrs().context("list the interfaces")?;
            let link = addresses
                .filter(|address| address.interface_name == interface)
                .find_map(|address| address.address?.as_link_addr().copied())
                .with_context(|| format!("no interface {interface}"))?;
            let socket = socket(AddressFamily::Packet, SockType::Raw, flags, SockProtocol::EthAll)
                .context("open a packet socket")?;
            setsockopt(&socket, sockopt::RcvBufForce, &BUFFER).context("enlarge its buffer")?;
            bind(socket.as_raw_fd(), &link).with_context(|| format!("bind to {interface}"))?;
            Ok(Self { socket, link, name: interface.to_owned() })
        };
        namespace.run_in(open).with_context(|| format!("in {}", namespace.name()))
    }

    /// The interface's own MAC address.
    pub fn mac(&self) -> [u8; 6] {
        self.link.addr().expect("invariant: an Ethernet interface has one")
    }

    /// Sends frames in this order, with nothing in between.
    pub fn send<T: AsRef<[u8]>>(&self, frames: &[T]) -> Result<()> {
        for frame in frames.iter().map(AsRef::as_ref) {
            let sent = sendto(self.socket.as_raw_fd(), frame, &self.link, MsgFlags::empty())
                .with_context(|| format!("send {} bytes on {}", frame.len(), self.name))?;
            ensure!(sent == frame.len(), "{sent} of {} bytes were sent", frame.len());
        }
        Ok(())
    }

    /// The next frame, if one comes within the limit.
    pub fn receive(&self, limit: Duration) -> Result<Option<(Direction, Vec<u8>)>> {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(frame) = self.receive_now()? {
                return Ok(Some(frame));
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            let mut fds = [PollFd::new(self.socket.as_fd(), PollFlags::POLLIN)];
            // Rounded up, so as not to spin through the last millisecond.
            let timeout = PollTimeout::try_from(left + Duration::from_millis(1))?;
            match poll(&mut fds, timeout) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(error) => return Err(error).context("wait for a frame"),
            }
        }
    }

    /// Waits for an IP packet that came in and that `probe` makes something of; passes over all else. `what` completes
    /// "no frame with …".
    pub fn expect<T>(
        &self,
        limit: Duration,
        what: &str,
        mut probe: impl FnMut(&Parsed) -> Option<T>,
    ) -> Result<T> {
        let deadline = Instant::now() + limit;
        let mut passed_over = HashSet::new();
        while let Some((direction, frame)) =
            self.receive(deadline.saturating_duration_since(Instant::now()))?
        {
            let Ok(parsed) = parse(&frame) else { continue };
            if direction == Direction::In {
                if let Some(value) = probe(&parsed) {
                    return Ok(value);
                }
                passed_over.insert((parsed.ip.src, parsed.ip.dst, parsed.ip.protocol));
            }
        }
        bail!("no frame with {what} on {} within {limit:?}, but {passed_over:?}", self.name)
    }

    pub(crate) fn socket(&self) -> &OwnedFd {
        &self.socket
    }

    fn receive_now(&self) -> Result<Option<(Direction, Vec<u8>)>> {
        let mut buffer = vec![0; MAX_FRAME];
        let mut parts = [IoSliceMut::new(&mut buffer)];
        let flags = MsgFlags::empty();
        let message = match recvmsg::<LinkAddr>(self.socket.as_raw_fd(), &mut parts, None, flags) {
            Ok(message) => message,
            Err(Errno::EAGAIN | Errno::EINTR | Errno::ENETDOWN) => return Ok(None),
            Err(error) => return Err(error).context("receive a frame"),
        };
        let (len, from) = (message.bytes, message.address.context("a frame without an address")?);
        // Before it was bound, the socket heard every interface.
        if from.ifindex() != self.link.ifindex() {
            return self.receive_now();
        }
        let out = from.pkttype() == PACKET_OUTGOING;
        let direction = if out { Direction::Out } else { Direction::In };
        buffer.truncate(len);
        Ok(Some((direction, buffer)))
    }
}

/// Of a frame that the interface sends (packet(7)).
const PACKET_OUTGOING: u8 = libc::PACKET_OUTGOING;
/// GRO makes up to 64 KiB of IP of the frames that come in.
const MAX_FRAME: usize = 65536 + 64;
const BUFFER: usize = 32 << 20;
