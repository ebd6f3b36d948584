//! HTTP as a client: what answers is a stranger, so everything is bounded in time and size.

use std::time::Duration;

use ureq::http::Response;
use ureq::tls::{RootCerts, TlsConfig, TlsProvider};
use ureq::{Agent, Body};

/// A client that gives up after `timeout`, keeps at most `max_idle` connections to a host, follows no
/// redirects, and takes an error status for an answer; TLS by aws-lc with the system's roots.
pub(crate) fn agent(timeout: Duration, max_idle: usize) -> Agent {
    // A second call finds the provider installed, which is as good.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let tls = TlsConfig::builder()
        .provider(TlsProvider::Rustls)
        .root_certs(RootCerts::PlatformVerifier)
        .build();
    let config = Agent::config_builder()
        .timeout_global(Some(timeout))
        .http_status_as_error(false)
        .max_redirects(0)
        .max_idle_connections_per_host(max_idle)
        .tls_config(tls)
        .user_agent(crate::SOFTWARE)
        .build();
    config.into()
}

/// The whole body of an answer of at most so many bytes.
pub(crate) fn body_of(response: &mut Response<Body>, most: u64) -> Result<Vec<u8>, ureq::Error> {
    response.body_mut().with_config().limit(most).read_to_vec()
}
