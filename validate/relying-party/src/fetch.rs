//! The HTTP client: one per relying party, with limits, for answers of strangers.
//!
//! | limit | why |
//! |---|---|
//! | `https` alone; `http` to this machine, or where it was allowed | whoever is on the way would choose the keys |
//! | redirects within one origin, at most three | an open redirect elsewhere must not choose the keys |
//! | a size for each kind of answer, counted while it arrives | a length that is announced may be a lie |
//! | time to connect, and for the whole, which callers set | a server that drips must not hold a call |
//! | proxies of the environment are not used | a variable that leaks into a process must not either |
//! | TLS by rustls with aws-lc; the system's roots, or those that were given, alone | |

use std::sync::Arc;

use reqwest::header::{AGE, CACHE_CONTROL, ETAG, HeaderMap, IF_NONE_MATCH};
use reqwest::redirect::{Attempt, Policy};
use reqwest::{Client, Response, StatusCode, Url};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use rustls_platform_verifier::BuilderVerifierExt;

use crate::error::FetchError;
use crate::{Bounds, BuildError, freshness};

/// Redirects that are followed: `/x` to `/x/` and a move or two.
const MAX_REDIRECTS: usize = 3;
/// Characters of a URL: none in use is near it, and it goes into messages.
const MAX_URL_CHARS: usize = 2_048;
/// Octets of an entity tag that is sent back.
const MAX_ETAG_BYTES: usize = 256;
/// What servers see.
const USER_AGENT: &str = concat!("chancery-relying-party/", env!("CARGO_PKG_VERSION"));

/// The client. Cloning shares its connections.
#[derive(Clone, Debug)]
pub struct Web {
    client: Client,
    plain_http: bool,
    /// Why `https` cannot work here.
    no_tls: Option<Arc<str>>,
}

/// An answer with a body.
#[derive(Debug)]
pub struct Answer {
    /// The body; `None` if it is still the one of the entity tag that was sent (304).
    pub body: Option<Vec<u8>>,
    /// What the answer says about its freshness; see [`freshness::lifetime_s`].
    pub lifetime_s: Option<u64>,
    /// The entity tag, for the next request.
    pub etag: Option<String>,
}

impl Web {
    /// A client; `roots` are PEM certificates that are trusted instead of the system's.
    pub fn new(
        bounds: &Bounds,
        roots: Option<&[u8]>,
        plain_http: bool,
    ) -> Result<Self, BuildError> {
        let (tls, no_tls) = tls(roots)?;
        let client = Client::builder()
            .tls_backend_preconfigured(tls)
            .http1_only()
            .no_proxy()
            .referer(false)
            .redirect(Policy::custom(within_origin))
            .connect_timeout(bounds.connect_timeout)
            .user_agent(USER_AGENT)
            .build()
            .map_err(|error| BuildError::Client(chain(&error)))?;
        Ok(Self { client, plain_http, no_tls })
    }

    /// Reads a URL that may be fetched.
    pub fn url(&self, text: &str) -> Result<Url, FetchError> {
        let shown = || text.chars().take(MAX_URL_CHARS).flat_map(char::escape_debug).collect();
        let refused = |why| FetchError::Refused { url: shown(), why };
        if text.len() > MAX_URL_CHARS {
            return Err(refused("is too long for a URL"));
        }
        let url = Url::parse(text).map_err(|_| refused("is not a URL"))?;
        if !url.username().is_empty() || url.password().is_some() {
            return Err(refused("holds a user name; name the host alone"));
        }
        match url.scheme() {
            "https" => Ok(url),
            "http" if self.plain_http || is_this_machine(&url) => Ok(url),
            "http" => Err(refused("is not encrypted; use `https`, or allow plain HTTP knowingly")),
            _ => Err(refused("is neither `https` nor `http`")),
        }
    }

    /// Reads a URL that a document at `from` names. What came encrypted names no plain address, not
    /// even of this machine: strangers must not make it ask its own services.
    pub fn url_named_at(&self, from: &Url, text: &str) -> Result<Url, FetchError> {
        let url = self.url(text)?;
        if from.scheme() == "https" && url.scheme() != "https" && !self.plain_http {
            let why = "is not encrypted, while what names it is";
            return Err(FetchError::Refused { url: url.to_string(), why });
        }
        Ok(url)
    }

    /// GETs at most `limit` bytes. With an entity tag the answer may be that nothing changed.
    pub async fn get(
        &self,
        url: &Url,
        limit: usize,
        etag: Option<&str>,
    ) -> Result<Answer, FetchError> {
        self.check_tls(url)?;
        let mut request = self.client.get(url.clone());
        if let Some(etag) = etag {
            request = request.header(IF_NONE_MATCH, etag);
        }
        let response = request.send().await.map_err(|error| failed(url, &error))?;
        let status = response.status();
        let lifetime_s = lifetime_s(response.headers());
        if status == StatusCode::NOT_MODIFIED && etag.is_some() {
            let etag = etag_of(response.headers()).or_else(|| etag.map(str::to_owned));
            return Ok(Answer { body: None, lifetime_s, etag });
        }
        if status != StatusCode::OK {
            return Err(FetchError::Status { url: url.to_string(), status: status.as_u16() });
        }
        let etag = etag_of(response.headers());
        let body = read_body(url, response, limit).await?;
        Ok(Answer { body: Some(body), lifetime_s, etag })
    }

    /// GETs at most `limit` bytes, those of an answer 404 too: with the status.
    pub async fn get_found_or_not(
        &self,
        url: &Url,
        limit: usize,
    ) -> Result<(u16, Vec<u8>), FetchError> {
        self.check_tls(url)?;
        let sent = self.client.get(url.clone()).send().await;
        let response = sent.map_err(|error| failed(url, &error))?;
        let status = response.status();
        if !matches!(status, StatusCode::OK | StatusCode::NOT_FOUND) {
            return Err(FetchError::Status { url: url.to_string(), status: status.as_u16() });
        }
        Ok((status.as_u16(), read_body(url, response, limit).await?))
    }

    fn check_tls(&self, url: &Url) -> Result<(), FetchError> {
        match &self.no_tls {
            Some(why) if url.scheme() == "https" => {
                Err(FetchError::Transport { url: url.to_string(), why: why.to_string() })
            }
            _ => Ok(()),
        }
    }
}

/// A body of at most `limit` bytes, counted while it arrives.
async fn read_body(url: &Url, mut response: Response, limit: usize) -> Result<Vec<u8>, FetchError> {
    let too_long = || FetchError::TooLong { url: url.to_string(), limit };
    if response.content_length().is_some_and(|length| length > limit as u64) {
        return Err(too_long());
    }
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| failed(url, &error))? {
        if body.len().saturating_add(chunk.len()) > limit {
            return Err(too_long());
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// TLS, and why it cannot work if the system has no roots. That is no reason to fail here: a party
/// that talks to this machine alone needs none.
fn tls(roots: Option<&[u8]>) -> Result<(ClientConfig, Option<Arc<str>>), BuildError> {
    let versions = || {
        ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| BuildError::Client(error.to_string()))
    };
    if let Some(pem) = roots {
        let store = read_roots(pem)?;
        let config = versions()?.with_root_certificates(store).with_no_client_auth();
        return Ok((config, None));
    }
    match versions()?.with_platform_verifier() {
        Ok(builder) => Ok((builder.with_no_client_auth(), None)),
        Err(error) => {
            let none = RootCertStore::empty();
            let config = versions()?.with_root_certificates(none).with_no_client_auth();
            let why = format!("the system's root certificates cannot be used: {error}");
            Ok((config, Some(why.into())))
        }
    }
}

fn read_roots(pem: &[u8]) -> Result<RootCertStore, BuildError> {
    let mut store = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate = certificate.map_err(|error| BuildError::Roots(error.to_string()))?;
        store.add(certificate).map_err(|error| BuildError::Roots(error.to_string()))?;
    }
    if store.is_empty() {
        return Err(BuildError::Roots("there is no certificate".to_owned()));
    }
    Ok(store)
}

/// The name `localhost`, 127.0.0.0/8 and `[::1]`.
fn is_this_machine(url: &Url) -> bool {
    let host = url.host_str().unwrap_or("");
    let address = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
    let loopback = address.parse().is_ok_and(|address: std::net::IpAddr| address.is_loopback());
    loopback || host == "localhost"
}

const ELSEWHERE: &str = "to another origin, which is not followed";
const TOO_OFTEN: &str = "more than three times";

fn within_origin(attempt: Attempt<'_>) -> reqwest::redirect::Action {
    let from = attempt.previous().last().map(Url::origin);
    if from.as_ref() != Some(&attempt.url().origin()) {
        return attempt.error(ELSEWHERE);
    }
    if attempt.previous().len() > MAX_REDIRECTS {
        return attempt.error(TOO_OFTEN);
    }
    attempt.follow()
}

fn failed(url: &Url, error: &reqwest::Error) -> FetchError {
    let why = chain(error);
    let url = url.to_string();
    if !error.is_redirect() {
        return FetchError::Transport { url, why };
    }
    let why = if why.contains(ELSEWHERE) { ELSEWHERE } else { TOO_OFTEN };
    FetchError::Redirect { url, why }
}

/// The error's causes, the last of which says what happened; the first repeats the URL.
fn chain(error: &dyn std::error::Error) -> String {
    let mut texts = Vec::new();
    let mut next = error.source();
    while let Some(cause) = next {
        texts.push(cause.to_string());
        next = cause.source();
    }
    if texts.is_empty() { error.to_string() } else { texts.join(": ") }
}

fn lifetime_s(headers: &HeaderMap) -> Option<u64> {
    let control = headers.get_all(CACHE_CONTROL).iter().filter_map(|value| value.to_str().ok());
    let age = headers.get(AGE).and_then(|value| value.to_str().ok());
    freshness::lifetime_s(control, age)
}

fn etag_of(headers: &HeaderMap) -> Option<String> {
    let etag = headers.get(ETAG)?.to_str().ok()?;
    (etag.len() <= MAX_ETAG_BYTES).then(|| etag.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn web(plain_http: bool) -> Web {
        Web::new(&Bounds::default(), None, plain_http).unwrap()
    }

    #[test]
    fn plain_http_is_for_this_machine() {
        let strict = web(false);
        for url in [
            "https://a.example/x",
            "http://127.0.0.1:1/x",
            "http://127.9.9.9/",
            "http://[::1]:8/",
            "http://localhost:8420/r",
        ] {
            assert!(strict.url(url).is_ok(), "{url}");
        }
        for url in [
            "http://a.example/",
            "http://localhost.a.example/",
            "http://10.0.0.1/",
            "http://[::2]/",
            "http://[::ffff:10.0.0.1]/",
        ] {
            let error = strict.url(url).unwrap_err().to_string();
            assert!(error.contains("is not encrypted"), "{url}: {error}");
            assert!(web(true).url(url).is_ok(), "{url}");
        }
    }

    #[test]
    fn what_is_no_web_address_is_refused() {
        for (url, why) in [
            ("", "is not a URL"),
            ("a.example", "is not a URL"),
            ("file:///etc/passwd", "is neither"),
            ("ftp://a.example/", "is neither"),
            ("https://u@a.example/", "user name"),
            ("https://u:p@a.example/", "user name"),
            ("https://:p@a.example/", "user name"),
        ] {
            let error = web(true).url(url).unwrap_err().to_string();
            assert!(error.contains(why), "{url}: {error}");
        }
        let long = format!("https://a.example/{}", "x".repeat(MAX_URL_CHARS));
        assert!(web(true).url(&long).unwrap_err().to_string().contains("too long"));
    }

    #[test]
    fn roots_must_be_certificates() {
        let roots = |pem: &str| Web::new(&Bounds::default(), Some(pem.as_bytes()), false);
        let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        for pem in ["", "hello", broken] {
            assert!(matches!(roots(pem), Err(BuildError::Roots(_))), "{pem}");
        }
        let own = rcgen::generate_simple_self_signed(["a.example".to_owned()]).unwrap();
        assert!(roots(&own.cert.pem()).is_ok());
    }
}
