//! Listening sockets: TCP, and Unix for processes of the same machine.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::Path;

use prometheus_client::metrics::counter::Counter;
use tokio::net::{TcpListener, TcpSocket, TcpStream, UnixListener, UnixStream};

use super::{BACKLOG, ListenError};

/// The peer of every connection over a Unix socket, which has no address.
pub const LOCAL_PEER: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// Where connections come from.
#[derive(Debug)]
pub enum Socket {
    /// The network.
    Tcp(TcpListener),
    /// This machine.
    Unix(UnixListener),
    /// Some users of this machine.
    Guarded(UnixListener, LocalPeers),
}

/// The users whose processes may connect: the kernel's word (`SO_PEERCRED`), beside the mode of the
/// socket's file.
#[derive(Clone, Debug)]
pub struct LocalPeers {
    /// User ids.
    pub uids: Vec<u32>,
    /// Counts connections of others.
    pub refused: Counter,
}

impl LocalPeers {
    fn admits(&self, stream: &UnixStream) -> bool {
        let uid = stream.peer_cred().map(|peer| peer.uid());
        if uid.as_ref().is_ok_and(|uid| self.uids.contains(uid)) {
            return true;
        }
        // Said once; then the counter tells, so that nobody can fill the disk with this line.
        if self.refused.inc() == 0 {
            tracing::warn!(?uid, "a user who may not connect tried to; see the metrics for more");
        }
        false
    }
}

impl From<TcpListener> for Socket {
    fn from(listener: TcpListener) -> Self {
        Self::Tcp(listener)
    }
}

impl From<UnixListener> for Socket {
    fn from(listener: UnixListener) -> Self {
        Self::Unix(listener)
    }
}

/// One accepted connection.
pub(super) enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Socket {
    pub(super) async fn accept(&self) -> io::Result<(Stream, SocketAddr)> {
        match self {
            Self::Tcp(listener) => {
                let (stream, peer) = listener.accept().await?;
                // Responses are written whole; waiting for more to send would only delay them. An
                // error here means that the connection is gone, which the first read reports.
                let _ = stream.set_nodelay(true);
                Ok((Stream::Tcp(stream), peer))
            }
            Self::Unix(listener) => {
                let (stream, _) = listener.accept().await?;
                Ok((Stream::Unix(stream), LOCAL_PEER))
            }
            Self::Guarded(listener, peers) => loop {
                let (stream, _) = listener.accept().await?;
                if peers.admits(&stream) {
                    return Ok((Stream::Unix(stream), LOCAL_PEER));
                }
            },
        }
    }
}

/// Opens a listening socket. The unspecified IPv6 address `[::]` takes IPv4 connections too.
///
/// Must be called inside a tokio runtime.
///
/// # Errors
///
/// [`ListenError::Bind`] with the address and what to do.
pub fn bind(address: SocketAddr) -> Result<TcpListener, ListenError> {
    let open = || {
        let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        // Without this, a restart would have to wait for the old connections' last minute.
        socket.set_reuseaddr(true)?;
        if address.is_ipv6() && address.ip().is_unspecified() {
            rustix::net::sockopt::set_ipv6_v6only(&socket, false)?;
        }
        socket.bind(address)?;
        socket.listen(BACKLOG)
    };
    open().map_err(|source| ListenError::Bind { address, source })
}

/// Opens a listening Unix socket with these permissions, replacing one that nobody listens on.
///
/// Must be called inside a tokio runtime.
///
/// # Errors
/// [`ListenError::BindLocal`] with the path and what to do.
pub fn bind_local(path: &Path, mode: u32) -> Result<UnixListener, ListenError> {
    let failed = |source| ListenError::BindLocal { path: path.to_owned(), source };
    if let Ok(found) = std::fs::symlink_metadata(path) {
        if !found.file_type().is_socket() {
            return Err(failed(io::ErrorKind::AlreadyExists.into()));
        }
        // Refused is what a dead one answers. Any other failure says nothing: it may be somebody else's.
        match std::os::unix::net::UnixStream::connect(path) {
            Ok(_) => return Err(failed(io::ErrorKind::AddrInUse.into())),
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
            Err(error) => return Err(failed(error)),
        }
        std::fs::remove_file(path).map_err(failed)?;
    }
    let listener = bind_narrow(path, mode).map_err(failed)?;
    // The umask may have taken bits away that were asked for; nobody was let in meanwhile.
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).map_err(failed)?;
    listener.set_nonblocking(true).map_err(failed)?;
    UnixListener::from_std(listener).map_err(failed)
}

/// Binds a socket whose file never has a wider mode than this: Linux makes it with the mode of the
/// socket itself, less the umask.
fn bind_narrow(path: &Path, mode: u32) -> io::Result<std::os::unix::net::UnixListener> {
    use rustix::fs::{Mode, fchmod};
    use rustix::net::{self, AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
    let socket =
        net::socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    fchmod(&socket, Mode::from_raw_mode(mode))?;
    net::bind(&socket, &SocketAddrUnix::new(path)?)?;
    net::listen(&socket, i32::try_from(BACKLOG).unwrap_or(i32::MAX))?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_socket_of_somebody_else_stays() {
        let folder = std::env::temp_dir().join(format!("chancery-other-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir(&folder).unwrap();
        let path = folder.join("other.sock");
        // A stream cannot connect to it, and yet it is in use.
        let _other = std::os::unix::net::UnixDatagram::bind(&path).unwrap();
        bind_local(&path, 0o600).unwrap_err();
        assert!(path.exists());
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn a_sockets_file_is_never_wider_than_it_is_to_be() {
        let folder = std::env::temp_dir().join(format!("chancery-narrow-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir(&folder).unwrap();
        for mode in [0o600, 0o620, 0o660] {
            let path = folder.join(format!("{mode:o}.sock"));
            let _listener = bind_narrow(&path, mode).unwrap();
            let made = std::fs::metadata(&path).unwrap().permissions().mode() & 0o777;
            assert_eq!(made & !mode, 0, "{made:o} before anybody changed it");
            std::os::unix::net::UnixStream::connect(&path).unwrap();
        }
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[tokio::test]
    async fn a_local_socket_replaces_a_dead_one_and_nothing_else() {
        let folder = std::env::temp_dir().join(format!("chancery-socket-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir(&folder).unwrap();
        let path = folder.join("authz.sock");
        let listener = bind_local(&path, 0o620).unwrap();
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o620);
        let error = bind_local(&path, 0o600).unwrap_err().to_string();
        assert!(error.contains("authz.sock") && error.contains("another process"), "{error}");
        drop(listener);
        drop(bind_local(&path, 0o600).unwrap());
        let file = folder.join("file");
        std::fs::write(&file, "kept").unwrap();
        assert!(bind_local(&file, 0o600).is_err());
        assert_eq!(std::fs::read(&file).unwrap(), b"kept");
        assert!(bind_local(&folder.join("none/authz.sock"), 0o600).is_err());
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
