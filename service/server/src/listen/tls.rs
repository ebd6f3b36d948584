//! TLS: certificate and key from PEM files, HTTP/2 by ALPN, and X25519MLKEM768 with every client
//! that knows it: a recorded session must stay closed to whoever has a quantum computer later.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use rustls::crypto::aws_lc_rs::kx_group::{SECP256R1, SECP384R1, X25519, X25519MLKEM768};
use rustls::crypto::{ActiveKeyExchange, CryptoProvider, SupportedKxGroup, aws_lc_rs};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::Acceptor;
use rustls::{NamedGroup, ProtocolVersion, ServerConfig};
use serde::Deserialize;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::TlsStream;

use super::ListenError;

/// Largest certificate or key file in bytes: hundreds of certificates.
pub const MAX_PEM_BYTES: u64 = 1024 * 1024;

/// Where certificate and key lie.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsOptions {
    /// PEM file with the server's certificate and then the intermediate ones.
    pub cert_file: PathBuf,
    /// PEM file with the certificate's private key (PKCS#8, PKCS#1 or SEC1, not encrypted).
    pub key_file: PathBuf,
}

/// Certificate and key, ready for use, which can be read again while the listener runs.
#[derive(Debug)]
pub struct Tls {
    options: TlsOptions,
    current: RwLock<Arc<Configs>>,
}

/// What serves a connection, by what its client can do.
#[derive(Debug)]
struct Configs {
    /// For clients that know X25519MLKEM768. rustls follows the client's order among the groups
    /// that it is given, so a server that insists on its own gives it no choice.
    post_quantum: Arc<ServerConfig>,
    /// For all others.
    classical: Arc<ServerConfig>,
}

impl Tls {
    /// Reads certificate and key.
    ///
    /// # Errors
    ///
    /// [`ListenError::TlsFile`], [`ListenError::TlsPem`] and [`ListenError::TlsPair`], with the
    /// file and what is wrong with it.
    pub fn load(options: TlsOptions) -> Result<Arc<Self>, ListenError> {
        let current = RwLock::new(read(&options)?);
        Ok(Arc::new(Self { options, current }))
    }

    /// Reads the files again, for a renewed certificate. Connections from now on use it.
    ///
    /// # Errors
    ///
    /// As for [`Tls::load`]; then everything stays as it is.
    pub fn reload(&self) -> Result<(), ListenError> {
        let configs = read(&self.options)?;
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = configs;
        Ok(())
    }

    /// Makes the handshake with a client, as its hello demands.
    pub(super) async fn accept<S>(&self, stream: S) -> io::Result<TlsStream<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let start = LazyConfigAcceptor::new(Acceptor::default(), stream).await?;
        let hello = start.client_hello();
        let groups = hello.named_groups().unwrap_or_default();
        let configs = {
            let current = self.current.read();
            current.unwrap_or_else(PoisonError::into_inner).clone()
        };
        let config = if groups.contains(&NamedGroup::X25519MLKEM768) {
            &configs.post_quantum
        } else {
            &configs.classical
        };
        start.into_stream(config.clone()).await
    }
}

fn read(options: &TlsOptions) -> Result<Arc<Configs>, ListenError> {
    let chain = read_chain(&options.cert_file)?;
    let key = read_key(&options.key_file)?;
    let config = |groups: Vec<&'static dyn SupportedKxGroup>| {
        server_config(groups, chain.clone(), key.clone_key()).map_err(|source| {
            ListenError::TlsPair {
                cert_file: options.cert_file.clone(),
                key_file: options.key_file.clone(),
                source,
            }
        })
    };
    Ok(Arc::new(Configs {
        post_quantum: config(vec![X25519MLKEM768, &X25519_TLS12, &SECP256R1_TLS12])?,
        classical: config(vec![X25519, SECP256R1, SECP384R1])?,
    }))
}

fn server_config(
    kx_groups: Vec<&'static dyn SupportedKxGroup>,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<Arc<ServerConfig>, rustls::Error> {
    let provider = CryptoProvider { kx_groups, ..aws_lc_rs::default_provider() };
    let mut config = ServerConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

static X25519_TLS12: OnlyTls12 = OnlyTls12(X25519);
static SECP256R1_TLS12: OnlyTls12 = OnlyTls12(SECP256R1);

/// A classical group for a client that names X25519MLKEM768 but then speaks TLS 1.2, which does
/// not have it.
#[derive(Debug)]
struct OnlyTls12(&'static dyn SupportedKxGroup);

impl SupportedKxGroup for OnlyTls12 {
    fn start(&self) -> Result<Box<dyn ActiveKeyExchange>, rustls::Error> {
        self.0.start()
    }

    fn name(&self) -> NamedGroup {
        self.0.name()
    }

    fn usable_for_version(&self, version: ProtocolVersion) -> bool {
        version == ProtocolVersion::TLSv1_2
    }
}

fn read_chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, ListenError> {
    let bytes = read_bounded(path)?;
    let chain: Vec<_> = CertificateDer::pem_slice_iter(&bytes)
        .collect::<Result<_, _>>()
        .map_err(|error| not_usable(path, format!("{error}; expected pem certificates")))?;
    if chain.is_empty() {
        let problem = "it holds no certificate; expected `-----BEGIN CERTIFICATE-----`";
        return Err(not_usable(path, problem.into()));
    }
    Ok(chain)
}

fn read_key(path: &Path) -> Result<PrivateKeyDer<'static>, ListenError> {
    let bytes = read_bounded(path)?;
    PrivateKeyDer::from_pem_slice(&bytes).map_err(|error| {
        let problem = match error {
            pem::Error::NoItemsFound => {
                "it holds no private key; expected `-----BEGIN PRIVATE KEY-----`, not encrypted"
                    .into()
            }
            error => format!("{error}; expected one pem private key"),
        };
        not_usable(path, problem)
    })
}

/// Reads a file of bounded size; `/dev/zero` by mistake must not fill the memory.
fn read_bounded(path: &Path) -> Result<Vec<u8>, ListenError> {
    let read = || -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let limit = MAX_PEM_BYTES.saturating_add(1);
        File::open(path)?.take(limit).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let bytes =
        read().map_err(|source| ListenError::TlsFile { path: path.to_path_buf(), source })?;
    if bytes.len() as u64 > MAX_PEM_BYTES {
        let problem = format!("it is larger than {MAX_PEM_BYTES} bytes; expected a pem file");
        return Err(not_usable(path, problem));
    }
    Ok(bytes)
}

fn not_usable(path: &Path, problem: String) -> ListenError {
    ListenError::TlsPem { path: path.to_path_buf(), problem }
}
