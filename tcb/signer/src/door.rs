//! Where the service comes in: a Unix socket on the same machine, or the virtio-serial port of a
//! virtual machine that holds nothing but this signer.
//!
//! A socket hands out one stream a peer, and the kernel says whose it is. A port is one stream for
//! the machine's life: it is opened before the sandbox closes, and kept. Its other end is the host,
//! which may be anybody there; that the host cannot forge is INVARIANT I5, and nothing is said to it
//! that a socket's peer would not hear. While nobody is connected over there, polling the port shows a hang-up, and
//! reading it shows the end of the stream; what an earlier peer left unread is thrown away then.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::rc::Rc;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{SocketFlags, accept_with};

/// How often a port is looked at while nobody is at its other end: a hang-up wakes `poll` at once,
/// again and again, so it cannot be waited on.
const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(20);

/// How much of a left peer's bytes is thrown away, in reads: more than a port's queue holds, and no
/// more, because a host that goes on sending must not keep the keys from being swept.
const FORGOTTEN_READS: usize = 256;

/// Where peers come in, one at a time.
#[derive(Debug)]
pub enum Door {
    /// A listening, non-blocking socket.
    Socket {
        /// The socket.
        listener: UnixListener,
        /// The user id that a peer may have; the signer's own is accepted too.
        peer_uid: Option<u32>,
    },
    /// An open, non-blocking virtio-serial port.
    Port(Rc<OwnedFd>),
}

/// A peer's stream. Dropping it ends the connection of a socket; a port stays open.
#[derive(Clone, Debug)]
pub(crate) struct Stream(Rc<OwnedFd>);

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// What waiting showed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Woken {
    /// Something may be there, or time is up.
    Look,
    /// Nobody is at the other end of the port.
    HungUp,
}

impl Door {
    /// The next peer, if one is there and may come in.
    pub(crate) fn admit(&self) -> Result<Option<Stream>, io::Error> {
        use rustix::io::Errno;
        let (listener, peer_uid) = match self {
            Door::Socket { listener, peer_uid } => (listener, *peer_uid),
            Door::Port(port) => {
                let there = !is_hung_up(port.as_fd(), PollFlags::IN, Some(&Timespec::default()))?;
                return Ok(there.then(|| Stream(port.clone())));
            }
        };
        let stream = match accept_with(listener, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC) {
            Ok(stream) => stream,
            Err(Errno::BADF | Errno::INVAL | Errno::NOTSOCK) => {
                return Err(io::Error::other("the listening socket is gone"));
            }
            // Nobody there, or out of descriptors or memory for now: no reason to end with all keys.
            Err(_) => return Ok(None),
        };
        let Ok(peer) = rustix::net::sockopt::socket_peercred(&stream) else { return Ok(None) };
        let uid = peer.uid.as_raw();
        if uid != rustix::process::geteuid().as_raw() && peer_uid != Some(uid) {
            // Whoever it is gets no word.
            return Ok(None);
        }
        Ok(Some(Stream(Rc::new(stream))))
    }

    /// Waits for somebody to come in.
    pub(crate) fn wait(&self, limit: Duration) -> Result<(), io::Error> {
        match self {
            Door::Socket { listener, .. } => {
                is_hung_up(listener.as_fd(), PollFlags::IN, Some(&timespec(limit))).map(drop)
            }
            Door::Port(port) => {
                if is_hung_up(port.as_fd(), PollFlags::IN, Some(&Timespec::default()))? {
                    std::thread::sleep(limit.min(LOOK_AGAIN_AFTER));
                }
                Ok(())
            }
        }
    }

    /// Waits for a peer that is inside.
    pub(crate) fn wait_for(
        &self,
        stream: &Stream,
        flags: PollFlags,
        limit: Duration,
    ) -> Result<Woken, io::Error> {
        let hung_up = is_hung_up(stream.as_fd(), flags, Some(&timespec(limit)))?;
        // The end of a socket's stream is read, after everything that came before it.
        let gone = hung_up && matches!(self, Door::Port(_));
        Ok(if gone { Woken::HungUp } else { Woken::Look })
    }

    /// Throws away what a peer that left had still sent, so that the next one is not taken for it.
    pub(crate) fn forget(&self, scratch: &mut [u8]) {
        let Door::Port(port) = self else { return };
        for _ in 0..FORGOTTEN_READS {
            if !matches!(rustix::io::read(port, &mut *scratch), Ok(1..)) {
                break;
            }
        }
    }
}

fn timespec(limit: Duration) -> Timespec {
    Timespec {
        tv_sec: i64::try_from(limit.as_secs()).unwrap_or(1),
        tv_nsec: i64::from(limit.subsec_nanos()),
    }
}

fn is_hung_up(
    fd: BorrowedFd<'_>,
    flags: PollFlags,
    limit: Option<&Timespec>,
) -> Result<bool, io::Error> {
    let mut fds = [PollFd::from_borrowed_fd(fd, flags)];
    match poll(&mut fds, limit) {
        Ok(_) | Err(rustix::io::Errno::INTR) => {}
        Err(e) => return Err(e.into()),
    }
    Ok(fds.iter().any(|fd| fd.revents().contains(PollFlags::HUP)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    /// A pair of sockets hangs up as a port does when the host's side is closed.
    fn port() -> (Door, UnixStream) {
        let (ours, host) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        (Door::Port(Rc::new(ours.into())), host)
    }

    #[test]
    fn a_port_is_one_stream_that_outlives_its_peers() {
        let (door, mut host) = port();
        for byte in [1, 2] {
            let stream = door.admit().unwrap().unwrap();
            rustix::io::write(&stream, &[byte]).unwrap();
            // The peer is dropped here, and the port stays.
        }
        let mut read = [0; 2];
        host.read_exact(&mut read).unwrap();
        assert_eq!(read, [1, 2]);
    }

    #[test]
    fn a_port_with_nobody_at_its_other_end_admits_nobody_and_does_not_spin() {
        let (door, host) = port();
        let stream = door.admit().unwrap().unwrap();
        let long = Duration::from_secs(60);
        let quiet = door.wait_for(&stream, PollFlags::IN, Duration::ZERO).unwrap();
        assert_eq!(quiet, Woken::Look);
        drop(host);
        assert_eq!(door.wait_for(&stream, PollFlags::IN, long).unwrap(), Woken::HungUp);
        assert!(door.admit().unwrap().is_none());
        let started = std::time::Instant::now();
        door.wait(long).unwrap();
        assert!(started.elapsed() >= LOOK_AGAIN_AFTER);
    }

    #[test]
    fn what_a_peer_left_behind_is_not_taken_for_the_next_ones() {
        let (door, mut host) = port();
        host.write_all(&[7; 1_000]).unwrap();
        door.forget(&mut [0; 64]);
        host.write_all(&[8]).unwrap();
        let stream = door.admit().unwrap().unwrap();
        let mut read = [0; 64];
        assert_eq!(rustix::io::read(&stream, &mut read).unwrap(), 1);
        assert_eq!(read.first(), Some(&8));
    }

    #[test]
    fn a_socket_admits_its_own_user_and_leaves_the_end_of_a_stream_to_be_read() {
        let path = std::env::temp_dir().join(format!("chancery-door-{}", std::process::id()));
        let _ = std::fs::remove_file(&path);
        let listener = UnixListener::bind(&path).unwrap();
        listener.set_nonblocking(true).unwrap();
        let door = Door::Socket { listener, peer_uid: None };
        assert!(door.admit().unwrap().is_none());
        let mut peer = UnixStream::connect(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        let stream = door.admit().unwrap().unwrap();
        peer.write_all(&[9]).unwrap();
        drop(peer);
        let woken = door.wait_for(&stream, PollFlags::IN, Duration::from_secs(60)).unwrap();
        assert_eq!(woken, Woken::Look);
        door.forget(&mut [0; 64]);
        let mut read = [0; 64];
        assert_eq!(rustix::io::read(&stream, &mut read).unwrap(), 1);
    }
}
