//! TLS: the roots that were given, and no others.

use std::sync::Arc;

use axum::Router;
use axum::routing::get;
use chancery_relying_party::{RelyingParty, ValidatorConfig};
use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::PrivateKeyDer;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use crate::publisher::{AUDIENCE, Publisher};
use crate::quick;

/// A TLS server that hands every connection to a plain one; answers its URL and its certificate.
async fn in_front_of(plain: String) -> (String, String) {
    let names = ["localhost".to_owned()];
    let CertifiedKey { cert, signing_key } = generate_simple_self_signed(names).unwrap();
    let key = PrivateKeyDer::Pkcs8(signing_key.serialize_der().into());
    let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://localhost:{}", listener.local_addr().unwrap().port());
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (acceptor, plain) = (acceptor.clone(), plain.clone());
            tokio::spawn(async move {
                let Ok(mut inner) = acceptor.accept(stream).await else { return };
                let mut outer = tokio::net::TcpStream::connect(plain).await.unwrap();
                let _ = tokio::io::copy_bidirectional(&mut inner, &mut outer).await;
                let _ = inner.shutdown().await;
            });
        }
    });
    (url, cert.pem())
}

#[tokio::test]
async fn the_certificate_must_be_of_the_roots() {
    let publisher = Publisher::start().await;
    let plain = publisher.url.strip_prefix("http://").unwrap().to_owned();
    let (url, root) = in_front_of(plain).await;
    let jwks_uri = format!("{url}{}", Publisher::KEYS);
    let built = |roots: Option<&str>| {
        let config = ValidatorConfig::new(&publisher.issuer, AUDIENCE);
        let builder = RelyingParty::builder(config).bounds(quick());
        let builder = builder.jwks_uri(&publisher.issuer, &jwks_uri);
        match roots {
            Some(pem) => builder.root_certificates(pem.as_bytes()),
            None => builder,
        }
        .build()
        .unwrap()
    };
    built(Some(&root)).validate(&publisher.token()).await.unwrap();

    let stranger = generate_simple_self_signed(["localhost".to_owned()]).unwrap().cert.pem();
    for roots in [None, Some(stranger.as_str())] {
        let error = built(roots).ready().await.unwrap_err().to_string();
        let told = ["certificate", "issuer", "verif"];
        assert!(told.iter().any(|word| error.to_lowercase().contains(word)), "{error}");
    }
}

#[tokio::test]
async fn encrypted_and_plain_are_different_origins() {
    let publisher = Publisher::start().await;
    let keys = publisher.get(Publisher::KEYS);
    let moved = Router::new().route("/keys", get(move || async move { keys }));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let plain = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move { axum::serve(listener, moved).await.unwrap() });
    let (url, root) = in_front_of(plain).await;
    let elsewhere = crate::publisher::Fault::Redirect(format!("{url}/keys"));
    publisher.fail(Publisher::KEYS, elsewhere);
    let party = crate::builder(&publisher).root_certificates(root.as_bytes()).build().unwrap();
    let error = party.ready().await.unwrap_err().to_string();
    assert!(error.contains("to another origin"), "{error}");

    // The server does answer there.
    let mut stream =
        tokio::net::TcpStream::connect(url.strip_prefix("https://").unwrap()).await.unwrap();
    stream.write_all(b"not TLS").await.unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    assert!(!answer.is_empty(), "an alert");
}
