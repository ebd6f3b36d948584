//! `chancery authz`: judges tokens for proxies and programs in any language. nginx asks it by
//! `auth_request`, Envoy by HTTP `ext_authz`; `docs/authz.md` tells how to put it in place.
//!
//! `authz/decide.rs` is the page to open first: one request, one answer. Only a request that was
//! decided to be let in is answered 200; health and metrics are on a listener of their own, because a
//! 200 from there would let a request in where a proxy is configured carelessly.

mod decide;
mod headers;
mod journal;
mod keys;
mod metrics;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::bail;
use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use chancery_relying_party::bearer::{DEFAULT_REALM, Demands};
use chancery_relying_party::{Bounds, Finding, Profile, RelyingParty, Verdict};
use clap::Args;
use tokio::signal::unix::{SignalKind, signal};

use self::decide::Gate;
use self::headers::Told;
use self::journal::Journal;
use self::metrics::Metrics;
use super::relying_party::RelyingPartyArgs;
use super::serve::{raise_file_limit, start_logging};
use super::signals::until;
use super::{complain, say};
use crate::config::{LogFormat, Logging};
use crate::listen::{self, Limits, ListenOptions, Socket};

/// A proxy waits for each answer before it does anything else: what takes longer than this, looking
/// a token up in a log that does not answer included, is answered as unavailable.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// How long `/readyz` waits for the first key sets.
const READY_WITHIN: Duration = Duration::from_secs(2);
/// Tokens that were verified and are remembered where nothing else is said: some 2 KiB each.
const CACHE_ENTRIES: usize = 16_384;

/// `chancery authz`
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  chancery authz --issuer http://127.0.0.1:8420/consumers \
    --audience https://api.example --listen 127.0.0.1:8430\n\ndocs/authz.md shows the configuration \
    of nginx and Envoy.")]
pub struct AuthzArgs {
    #[command(flatten)]
    relying_party: RelyingPartyArgs,
    /// Where the proxy asks: a loopback address, or unix:PATH
    #[arg(long, default_value = "127.0.0.1:8430", value_name = "ADDR|unix:PATH")]
    listen: Place,
    /// Permissions of the Unix socket: who may ask learns which tokens are good
    #[arg(long, default_value = "660", value_name = "OCTAL", value_parser = parse_mode)]
    socket_mode: u32,
    /// Address of health and metrics
    #[arg(long, default_value = "127.0.0.1:8431")]
    admin: SocketAddr,
    /// Scope value that every token must have; may be repeated
    #[arg(long)]
    scope: Vec<String>,
    /// What a good token's answer tells, as headers `x-chancery-...`
    #[arg(long, value_enum, value_delimiter = ',', default_value = "subject,issuer,client,scope")]
    headers: Vec<Told>,
    /// Realm that a request without a token is told
    #[arg(long, default_value = DEFAULT_REALM)]
    realm: String,
    /// Verified tokens that are remembered; 0 for none
    #[arg(long, default_value_t = CACHE_ENTRIES, value_name = "ENTRIES")]
    cache: usize,
    /// Seconds for which the last good key set is used while no new one can be had (default: 3600)
    #[arg(long, value_name = "SECONDS")]
    keep: Option<u64>,
    /// Write the log as JSON
    #[arg(long)]
    log_json: bool,
}

/// Where to listen.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Place {
    Loopback(SocketAddr),
    Unix(PathBuf),
}

impl FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("unix:") {
            return match path {
                "" => Err("a socket is named unix:PATH".into()),
                path => Ok(Self::Unix(PathBuf::from(path))),
            };
        }
        let address: SocketAddr =
            text.parse().map_err(|_| "an address is 127.0.0.1:PORT, [::1]:PORT or unix:PATH")?;
        if !address.ip().is_loopback() {
            let why = "tokens would cross the network without TLS, and whoever can ask learns \
                       which are good: run authz beside the proxy, on loopback or unix:PATH";
            return Err(why.into());
        }
        Ok(Self::Loopback(address))
    }
}

fn parse_mode(text: &str) -> Result<u32, String> {
    match u32::from_str_radix(text, 8) {
        Ok(mode) if mode & !0o777 == 0 => Ok(mode),
        _ => Err("permissions are three octal digits, for example 660".into()),
    }
}

/// Runs until SIGTERM or SIGINT.
pub fn run(args: &AuthzArgs) -> anyhow::Result<ExitCode> {
    // What is wrong with options and files is said before anything is started.
    let mut builder = args.relying_party.builder()?.cache(args.cache);
    if let Some(keep) = args.keep {
        let keep = Duration::from_secs(keep);
        builder = builder.bounds(Bounds { keep, ..Bounds::default() });
    }
    check_demands(args)?;
    check_headers(args)?;
    let format = if args.log_json { LogFormat::Json } else { LogFormat::Human };
    start_logging(&Logging { format, level: None })?;
    raise_file_limit();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let result = runtime.block_on(async {
        let relying_party = builder.on_finding(tell_finding).build()?;
        serve(args, relying_party).await
    });
    runtime.shutdown_timeout(Duration::from_secs(1));
    result
}

fn check_demands(args: &AuthzArgs) -> anyhow::Result<()> {
    let allowed = |b: u8| matches!(b, 0x21 | 0x23..=0x5B | 0x5D..=0x7E);
    for scope in &args.scope {
        if scope.is_empty() || !scope.bytes().all(allowed) {
            bail!("--scope `{}` is not one scope value; repeat it for more", scope.escape_debug());
        }
    }
    if !args.scope.is_empty() && args.relying_party.profile == Profile::Entra {
        bail!(
            "--scope does not go with --profile entra: its tokens have `scp` and `roles` instead"
        );
    }
    Ok(())
}

/// The same subject, or client, of two issuers is not the same one.
fn check_headers(args: &AuthzArgs) -> anyhow::Result<()> {
    let told = |one: &Told| args.headers.contains(one);
    let collides = told(&Told::Subject) || told(&Told::Client);
    if collides && !told(&Told::Issuer) && args.relying_party.has_several_issuers() {
        bail!(
            "--headers tells subjects or clients of several issuers, and not of which: two issuers \
             may use the same name for different ones; add `issuer`"
        );
    }
    Ok(())
}

async fn serve(args: &AuthzArgs, relying_party: RelyingParty) -> anyhow::Result<ExitCode> {
    // Bound first: an address in use is found before anything is fetched.
    let socket = match &args.listen {
        Place::Loopback(address) => Socket::from(listen::bind(*address)?),
        Place::Unix(path) => Socket::from(listen::bind_local(path, args.socket_mode)?),
    };
    let admin_socket = listen::bind(args.admin)?;
    let gate = Arc::new(Gate {
        relying_party,
        realm: args.realm.clone(),
        demands: Demands { scopes: args.scope.clone(), audiences: Vec::new() },
        told: args.headers.clone(),
        metrics: Metrics::new(),
        journal: Journal::default(),
    });
    announce(args)?;

    let (stop, stopped) = tokio::sync::watch::channel(false);
    tokio::spawn(obey_signals(stop));
    // Requests are answered from the start: 503 until there is a key set.
    tokio::spawn(keys::watch(gate.clone()));
    let admin = tokio::spawn(listen::serve(
        admin_socket,
        admin(gate.clone()),
        ListenOptions::default(),
        until(stopped.clone()),
    ));
    let limits = Limits { request_timeout: ANSWER_WITHIN, ..Limits::default() };
    let options = ListenOptions { tls: None, limits };
    let drained = listen::serve(socket, decide::router(gate), options, until(stopped)).await;
    if drained.cut > 0 {
        tracing::warn!("{} connections were cut off", drained.cut);
    }
    admin.abort();
    if let Place::Unix(path) = &args.listen {
        let _ = std::fs::remove_file(path);
    }
    Ok(ExitCode::SUCCESS)
}

fn announce(args: &AuthzArgs) -> std::io::Result<()> {
    let place = match &args.listen {
        Place::Loopback(address) => format!("http://{address}"),
        Place::Unix(path) => format!("unix:{}", path.display()),
    };
    let mut lines = vec![
        format!("chancery authz answers on {place}"),
        format!("  nginx   {}", decide::NGINX_PATH),
        format!("  envoy   path_prefix {}", decide::ENVOY_PREFIX),
    ];
    let options = &args.relying_party;
    lines.extend(options.issuer.iter().map(|issuer| format!("  issuer    {issuer}")));
    lines.extend(options.audience.iter().map(|audience| format!("  audience  {audience}")));
    lines.push(format!("  health and metrics on http://{}", args.admin));
    say(&lines.join("\n"))
}

/// What a log says against a token that was let in, or would have been.
fn tell_finding(finding: &Finding) {
    let token = &finding.token;
    let verdict = match &finding.verdict {
        Verdict::InLog { .. } => return,
        Verdict::Pending => "pending",
        Verdict::Missing => "missing",
        Verdict::Forged { .. } => "FORGED",
        Verdict::Unknown { .. } => "unknown",
    };
    let jti = token.claims().jti.unwrap_or_default().escape_debug();
    tracing::warn!(verdict, kid = token.kid(), %jti, "the log does not confirm a token");
}

async fn obey_signals(stop: tokio::sync::watch::Sender<bool>) {
    let signals = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()));
    let (Ok(mut terminate), Ok(mut interrupt)) = signals else {
        complain("signals cannot be handled");
        return;
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    tracing::info!("stopping: requests in flight are finished first");
    let _ = stop.send(true);
}

/// Health and metrics.
fn admin(gate: Arc<Gate>) -> Router {
    Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics_text))
        .with_state(gate)
}

async fn ready(State(gate): State<Arc<Gate>>) -> Response {
    let why = match tokio::time::timeout(READY_WITHIN, gate.relying_party.ready()).await {
        Ok(Ok(())) => return "ready\n".into_response(),
        Ok(Err(rejection)) => rejection.to_string(),
        Err(_) => "the key sets are still being fetched".to_owned(),
    };
    (StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {why}\n")).into_response()
}

async fn metrics_text(State(gate): State<Arc<Gate>>) -> Response {
    const TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    let text = gate.metrics.text(&gate.relying_party.status());
    ([(header::CONTENT_TYPE, TYPE)], text).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machine_may_ask() {
        for good in ["127.0.0.1:8430", "[::1]:1", "127.9.9.9:0"] {
            assert!(matches!(good.parse(), Ok(Place::Loopback(_))), "{good}");
        }
        let socket = "unix:/run/chancery/authz.sock".parse();
        assert_eq!(socket, Ok(Place::Unix("/run/chancery/authz.sock".into())));
        for bad in ["0.0.0.0:8430", "[::]:8430", "192.0.2.1:80", "localhost:1", "unix:", "8430", ""]
        {
            assert!(bad.parse::<Place>().is_err(), "{bad}");
        }
    }

    #[test]
    fn permissions_are_octal() {
        assert_eq!(parse_mode("660"), Ok(0o660));
        for bad in ["", "999", "rw", "1777", "-1", "+7777"] {
            assert!(parse_mode(bad).is_err(), "{bad}");
        }
    }
}
