//! What can be wrong with a listener's settings.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

/// Errors of the listener. All of them arise before it serves.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ListenError {
    /// The address cannot be listened on.
    #[error("cannot listen on `{address}`: {source}; {}", bind_advice(source))]
    Bind {
        /// The address.
        address: SocketAddr,
        /// The operating system's answer.
        source: io::Error,
    },
    /// The Unix socket cannot be listened on.
    #[error("cannot listen on `{}`: {source}; {}", path.display(), local_advice(source))]
    BindLocal {
        /// The socket.
        path: PathBuf,
        /// The operating system's answer.
        source: io::Error,
    },
    /// A certificate or key file cannot be read.
    #[error("cannot read `{}`: {source}; check the path and that the service's user may read it", path.display())]
    TlsFile {
        /// The file.
        path: PathBuf,
        /// The operating system's answer.
        source: io::Error,
    },
    /// A certificate or key file does not hold what it should.
    #[error("`{}` is not usable for tls: {problem}", path.display())]
    TlsPem {
        /// The file.
        path: PathBuf,
        /// What is wrong, and what is expected.
        problem: String,
    },
    /// Certificate and key are readable but cannot be used together.
    #[error("`{}` and `{}` cannot be used for tls: {source}; the first certificate must be the server's own, and the key must be its key", cert_file.display(), key_file.display())]
    TlsPair {
        /// The certificate chain.
        cert_file: PathBuf,
        /// The private key.
        key_file: PathBuf,
        /// What rustls says.
        source: rustls::Error,
    },
    /// A network is not an address or a CIDR block.
    #[error("`{given}` is not a network: {problem}")]
    Network {
        /// What was given.
        given: String,
        /// What is wrong, and what is expected.
        problem: String,
    },
}

fn bind_advice(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => "another process uses it: stop that, or choose another port",
        io::ErrorKind::AddrNotAvailable => "this machine does not have that address",
        io::ErrorKind::PermissionDenied => {
            "ports below 1024 need a privilege: choose a higher port"
        }
        _ => "choose another address",
    }
}

fn local_advice(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => "another process uses it: stop that, or choose another path",
        io::ErrorKind::AlreadyExists => {
            "something else than a socket is there: choose another path"
        }
        _ => "its folder must exist and be writable, and its path have at most 107 bytes",
    }
}
