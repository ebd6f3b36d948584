//! Signs service-account tokens for kube-apiserver: `v1.ExternalJWTSigner` over a Unix socket.
//!
//! The page to open first is [`endpoint`]: what each of the three methods answers. [`api`] holds their
//! messages, [`settings`] what the configuration says, [`keys`] the keys as the API server wants them,
//! [`import`] the keys that a cluster had before.
//!
//! Whoever may connect gets what the realm's policy allows: the API server proves nothing of its own.
//! The mode of the socket's file and the users that may connect are the service's word; the policy is the
//! signer's, and bounds what a hostile host can get (INVARIANT I5).

pub mod api;
pub mod endpoint;
pub mod import;
pub mod keys;
pub mod reload;
pub mod settings;

use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use chancery_policy::{KubernetesDocument, RealmDocument, Schedule};
use chancery_token::Algorithm;
use tokio::net::UnixListener;
use tokio::task::JoinHandle;

use crate::config::{Config, ConfigError};
use crate::listen::{self, Limits, ListenError, ListenOptions, LocalPeers, Socket};
use crate::service::Service;

pub use settings::Settings;

/// API servers keep one connection each and refresh over it, so one that says nothing for so long and
/// for several refreshes is a stranger's, or its API server hangs. A living one connects again.
const IDLE_TIMEOUT: Duration = Duration::from_secs(600);
/// See [`IDLE_TIMEOUT`].
const IDLE_REFRESHES: u64 = 4;
/// A stranger that connects and says nothing goes.
const FIRST_REQUEST_WITHIN: Duration = Duration::from_secs(60);
/// Three API servers and their restarts.
const MAX_CONNECTIONS: usize = 64;
/// Calls at a time of one API server, which waits for a free one without any limit: what a large cluster
/// asks for while a hung signer is waited for.
const MAX_STREAMS: u32 = 4_096;
/// The realm that development mode adds.
const DEVELOPMENT_REALM: &str = "cluster";
/// What kubeadm names as issuer, and clusters as audience, where nothing else is said.
const DEFAULT_ISSUER: &str = "https://kubernetes.default.svc.cluster.local";

/// The open socket, and where it is.
#[derive(Debug)]
pub struct Listener {
    socket: UnixListener,
    path: PathBuf,
}

/// Opens the socket that the settings name, replacing one that nobody listens on; `None` where they
/// name none.
///
/// Must be called inside a tokio runtime.
///
/// # Errors
/// [`ListenError::BindLocal`] with the path and what to do.
pub fn bind(settings: &Settings) -> Result<Option<Listener>, ListenError> {
    let Some(path) = &settings.socket else {
        tracing::warn!("[kubernetes] names no socket, and no --kubernetes-socket is given");
        return Ok(None);
    };
    let socket = listen::bind_local(path, settings.socket_mode)?;
    Ok(Some(Listener { socket, path: path.clone() }))
}

/// [`serve`] in a task of its own, which ends at once where there is no socket.
pub fn start(
    listener: Option<Listener>,
    service: Arc<Service>,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> JoinHandle<()> {
    tokio::spawn(async move {
        if let Some(listener) = listener {
            serve(listener, service, shutdown).await;
        }
    })
}

/// Answers kube-apiserver until `shutdown` completes; calls in progress are finished, and the socket's
/// file is removed.
pub async fn serve(listener: Listener, service: Arc<Service>, shutdown: impl Future<Output = ()>) {
    let Some(settings) = service.config.kubernetes.clone() else { return };
    let peers = LocalPeers {
        uids: settings.peers(),
        refused: service.metrics.kubernetes.peers_refused.clone(),
    };
    let limits = Limits {
        max_connections: MAX_CONNECTIONS,
        max_streams: MAX_STREAMS,
        header_read_timeout: FIRST_REQUEST_WITHIN,
        idle_timeout: idle_timeout(&settings),
        ..Limits::default()
    };
    service.metrics.kubernetes.listening(true);
    tracing::info!(realm = settings.realm, "kube-apiserver: {}", listener.path.display());
    let app = endpoint::router(service.clone(), settings);
    let socket = Socket::Guarded(listener.socket, peers);
    listen::serve(socket, app, ListenOptions { tls: None, limits }, shutdown).await;
    service.metrics.kubernetes.listening(false);
    let _ = std::fs::remove_file(&listener.path);
}

fn idle_timeout(settings: &Settings) -> Duration {
    let refreshes = settings.refresh_hint_s.unwrap_or(0).saturating_mul(IDLE_REFRESHES);
    IDLE_TIMEOUT.max(Duration::from_secs(refreshes))
}

/// Has a configuration serve on this socket: that of its `[kubernetes]` table, or of its only realm of
/// this kind.
///
/// # Errors
/// [`ConfigError::Value`] when it is not clear which realm is meant.
pub fn serve_on(config: &mut Config, socket: &Path) -> Result<(), ConfigError> {
    if config.kubernetes.is_none() {
        let mut realms = config.realms.iter().filter(|realm| realm.kubernetes.is_some());
        let (Some(realm), None) = (realms.next(), realms.next()) else {
            let what = "--kubernetes-socket needs one realm with [realms.kubernetes], or a \
                        [kubernetes] table that names its realm";
            return Err(ConfigError::Value(what.to_owned()));
        };
        let settings = Settings::of(&realm.name);
        settings.check(&config.realms).map_err(ConfigError::Value)?;
        config.kubernetes = Some(settings);
    }
    if let Some(settings) = &mut config.kubernetes {
        settings.socket = Some(socket.to_owned());
    }
    Ok(())
}

/// The realm that development mode signs a cluster's tokens in: kubeadm's issuer, its one audience,
/// every service account.
#[must_use]
pub fn development_realm() -> RealmDocument {
    RealmDocument {
        name: DEVELOPMENT_REALM.to_owned(),
        issuer: DEFAULT_ISSUER.to_owned(),
        algorithms: vec![Algorithm::Es256],
        rsa_bits: 2048,
        // Pods ask for 3,607 s.
        schedule: Schedule { max_lifetime_s: 7_200, ..Schedule::default() },
        clients: Vec::new(),
        kubernetes: Some(KubernetesDocument {
            audiences: vec![DEFAULT_ISSUER.to_owned()],
            service_accounts: vec!["*:*".to_owned()],
            required_claims: Vec::new(),
            further_claims: Vec::new(),
            imported: Vec::new(),
        }),
    }
}
