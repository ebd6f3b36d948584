//! TLS over real sockets, with certificates made for the test.

use std::fs;
use std::path::PathBuf;
use std::sync::atomic::AtomicU32;

use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::crypto::{SupportedKxGroup, aws_lc_rs};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, NamedGroup, ProtocolVersion, RootCertStore, SupportedProtocolVersion};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::*;

/// A folder with a certificate for `localhost` and its key.
struct Pair {
    folder: PathBuf,
    roots: RootCertStore,
}

impl Pair {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("chancery-tls-{}-{number}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        fs::create_dir_all(&folder).unwrap();
        let mut pair = Self { folder, roots: RootCertStore::empty() };
        pair.renew();
        pair
    }

    /// Writes a new certificate and key, which clients trust beside the old ones.
    fn renew(&mut self) {
        let CertifiedKey { cert, signing_key } =
            generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        fs::write(self.options().cert_file, cert.pem()).unwrap();
        fs::write(self.options().key_file, signing_key.serialize_pem()).unwrap();
        self.roots.add(cert.der().clone()).unwrap();
    }

    fn options(&self) -> TlsOptions {
        TlsOptions {
            cert_file: self.folder.join("cert.pem"),
            key_file: self.folder.join("key.pem"),
        }
    }

    fn load(&self) -> Arc<Tls> {
        Tls::load(self.options()).unwrap()
    }

    fn server(&self, limits: Limits) -> Server {
        let tls = Some(self.load());
        Server::start(ListenOptions { tls, limits })
    }

    fn client(
        &self,
        groups: &[&'static dyn SupportedKxGroup],
        version: &'static SupportedProtocolVersion,
        alpn: &[&str],
    ) -> ClientConfig {
        let mut provider = aws_lc_rs::default_provider();
        if !groups.is_empty() {
            provider.kx_groups = groups.to_vec();
        }
        let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
            .with_protocol_versions(&[version])
            .unwrap()
            .with_root_certificates(self.roots.clone())
            .with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        config
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

async fn connect(server: &Server, config: ClientConfig) -> io::Result<TlsStream<TcpStream>> {
    let name = ServerName::try_from("localhost").unwrap();
    let stream = server.connect().await;
    TlsConnector::from(Arc::new(config)).connect(name, stream).await
}

#[tokio::test]
async fn the_key_agreement_is_post_quantum_and_http2_works() {
    let pair = Pair::new();
    let server = pair.server(Limits::default());
    let stream = connect(&server, pair.client(&[], &rustls::version::TLS13, &["h2", "http/1.1"]))
        .await
        .unwrap();
    let tls = stream.get_ref().1;
    let group = tls.negotiated_key_exchange_group().unwrap();
    assert_eq!(group.name(), NamedGroup::X25519MLKEM768);
    assert_eq!(tls.protocol_version(), Some(ProtocolVersion::TLSv1_3));
    assert_eq!(tls.alpn_protocol(), Some(&b"h2"[..]));

    let (mut client, connection) =
        http2::handshake::<_, _, Full<Bytes>>(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .unwrap();
    tokio::spawn(connection);
    let response = client.send_request(request("/")).await.unwrap();
    assert_eq!(response.version(), axum::http::Version::HTTP_2);
    assert_eq!(text(response).await, "hello");
    assert_eq!(server.stop().await, Drained { cut: 0 });
}

#[tokio::test]
async fn the_server_prefers_post_quantum_whatever_the_client_puts_first() {
    let pair = Pair::new();
    let server = pair.server(Limits::default());
    // This client sends no key share for it either, so the server asks for one (RFC 8446
    // section 4.1.4).
    let groups = [aws_lc_rs::kx_group::X25519, aws_lc_rs::kx_group::X25519MLKEM768];
    let stream =
        connect(&server, pair.client(&groups, &rustls::version::TLS13, &[])).await.unwrap();
    let group = stream.get_ref().1.negotiated_key_exchange_group().unwrap();
    assert_eq!(group.name(), NamedGroup::X25519MLKEM768);
}

#[tokio::test]
async fn older_clients_still_connect() {
    let pair = Pair::new();
    let server = pair.server(Limits::default());
    for (groups, version, name) in [
        (&[aws_lc_rs::kx_group::X25519][..], &rustls::version::TLS13, NamedGroup::X25519),
        (&[aws_lc_rs::kx_group::SECP256R1][..], &rustls::version::TLS12, NamedGroup::secp256r1),
        // All groups, X25519MLKEM768 first, which TLS 1.2 does not have.
        (&[][..], &rustls::version::TLS12, NamedGroup::X25519),
    ] {
        let stream = connect(&server, pair.client(groups, version, &["http/1.1"])).await.unwrap();
        let tls = stream.get_ref().1;
        assert_eq!(tls.negotiated_key_exchange_group().unwrap().name(), name);
        let (mut client, connection) =
            http1::handshake::<_, Full<Bytes>>(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        let response = client.send_request(request("/")).await.unwrap();
        assert_eq!(response.version(), axum::http::Version::HTTP_11);
        assert_eq!(text(response).await, "hello");
    }
}

#[tokio::test]
async fn a_slow_handshake_is_cut_off() {
    let pair = Pair::new();
    let server = pair.server(Limits { tls_handshake_timeout: millis(300), ..Limits::default() });
    for bytes in [&b""[..], &[0x16, 0x03, 0x01, 0x02, 0x00, 0x01]] {
        let (answer, took) = raw(&server, bytes).await;
        assert_eq!(answer, "");
        assert!(took >= millis(300) && took < SOON, "{took:?}");
    }
    // Plain HTTP on a TLS port ends at once, with an alert.
    let (answer, _) = raw(&server, b"GET / HTTP/1.1\r\n\r\n").await;
    assert!(!answer.contains("HTTP"), "{answer}");
}

#[tokio::test]
async fn draining_does_not_wait_for_handshakes() {
    let pair = Pair::new();
    let server = pair.server(Limits::default());
    let mut stream = server.connect().await;
    stream.write_all(&[0x16]).await.unwrap();
    sleep(millis(100)).await;
    let start = Instant::now();
    assert_eq!(server.stop().await, Drained { cut: 0 });
    assert!(start.elapsed() < TLS_HANDSHAKE_TIMEOUT);
}

#[tokio::test]
async fn a_renewed_certificate_serves_new_connections() {
    let mut pair = Pair::new();
    let tls = pair.load();
    let server = Server::start(ListenOptions { tls: Some(tls.clone()), limits: Limits::default() });
    let config = |pair: &Pair| pair.client(&[], &rustls::version::TLS13, &[]);
    let certificate = |stream: &TlsStream<TcpStream>| {
        stream.get_ref().1.peer_certificates().unwrap()[0].as_ref().to_vec()
    };
    let old = certificate(&connect(&server, config(&pair)).await.unwrap());

    // A half-written pair changes nothing.
    fs::write(pair.options().key_file, "").unwrap();
    tls.reload().unwrap_err();
    assert_eq!(certificate(&connect(&server, config(&pair)).await.unwrap()), old);

    pair.renew();
    tls.reload().unwrap();
    assert_ne!(certificate(&connect(&server, config(&pair)).await.unwrap()), old);
}

#[test]
fn unusable_files_are_named() {
    let pair = Pair::new();
    let other = Pair::new();
    let cert = fs::read(pair.options().cert_file).unwrap();
    let key = fs::read(pair.options().key_file).unwrap();
    let options = pair.options();
    let load = |cert: &[u8], key: &[u8]| {
        fs::write(&options.cert_file, cert).unwrap();
        fs::write(&options.key_file, key).unwrap();
        Tls::load(options.clone()).unwrap_err().to_string()
    };
    let named = |path: &PathBuf| format!("`{}` is not usable for tls", path.display());
    for (bad_cert, reason) in [
        (&b""[..], "it holds no certificate"),
        (&key, "it holds no certificate"),
        (
            b"-----BEGIN CERTIFICATE-----\n!!!\n-----END CERTIFICATE-----\n",
            "expected pem certificates",
        ),
        (b"-----BEGIN CERTIFICATE-----\nAAAA\n", "expected pem certificates"),
        (&vec![b'x'; MAX_PEM_BYTES as usize + 1], "it is larger than 1048576 bytes"),
    ] {
        let text = load(bad_cert, &key);
        assert!(text.starts_with(&named(&options.cert_file)) && text.contains(reason), "{text}");
    }
    for (bad_key, reason) in [
        (&cert[..], "it holds no private key"),
        (
            b"-----BEGIN PRIVATE KEY-----\n!!!\n-----END PRIVATE KEY-----\n",
            "expected one pem private key",
        ),
    ] {
        let text = load(&cert, bad_key);
        assert!(text.starts_with(&named(&options.key_file)) && text.contains(reason), "{text}");
    }
    let other_key = fs::read(other.options().key_file).unwrap();
    let text = load(&cert, &other_key);
    assert!(text.contains("the key must be its key"), "{text}");

    fs::remove_file(&options.key_file).unwrap();
    let error = Tls::load(options.clone()).unwrap_err();
    assert!(matches!(&error, ListenError::TlsFile { path, .. } if *path == options.key_file));
    assert!(error.to_string().contains("check the path"), "{error}");
}
