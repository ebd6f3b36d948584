//! `chancery serve`: puts the service up, and takes it down in order.

use std::io::IsTerminal;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;

use super::signals::{self, until};
use super::{DEFAULT_DATA, complain, say};
use crate::config::{Config, LogFormat, Logging};
use crate::digests::Digests;
use crate::folder::{DataFolder, Paths};
use crate::listen::{self, ListenOptions, Tls};
use crate::service::{Service, SignerAt};
use crate::store::Store;
use crate::{audit, control, http, kubernetes};

/// After the listeners drained, open batches get this long.
const FINISH_WITHIN: Duration = Duration::from_secs(15);

/// `chancery serve`
#[derive(Debug, Args)]
#[command(after_help = "Without --config: development mode on 127.0.0.1:8420, with realms \
    `consumers` and `organizations` and a demo client.")]
pub struct ServeArgs {
    /// Configuration file (docs/configuration.md)
    #[arg(long)]
    config: Option<PathBuf>,
    /// Data folder
    #[arg(long, env = "CHANCERY_DATA")]
    data: Option<PathBuf>,
    /// Address of the public listener
    #[arg(long)]
    listen: Option<SocketAddr>,
    /// Address of the admin listener: health and metrics
    #[arg(long)]
    admin: Option<SocketAddr>,
    /// Attach to this signer instead of starting one: unix:PATH
    #[arg(long, value_parser = parse_signer)]
    signer: Option<PathBuf>,
    /// The user id that the signer runs under, where it is not the service's own
    #[arg(long, requires = "signer")]
    signer_uid: Option<u32>,
    /// Answer kube-apiserver on this Unix socket (docs/kubernetes.md)
    #[arg(long, value_name = "PATH")]
    kubernetes_socket: Option<PathBuf>,
}

fn parse_signer(text: &str) -> Result<PathBuf, String> {
    match text.split_once(':') {
        Some(("unix", path)) if !path.is_empty() => Ok(PathBuf::from(path)),
        Some(("vsock", _)) => Err("vsock is not supported by this version; use unix:PATH".into()),
        _ => Err("a signer is named unix:PATH".into()),
    }
}

/// Runs until SIGTERM or SIGINT.
pub fn run(args: ServeArgs) -> anyhow::Result<ExitCode> {
    let (config, folder) = prepare(&args)?;
    start_logging(&config.logging)?;
    raise_file_limit();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let result = runtime.block_on(serve(args, config, folder.paths()));
    // Nothing of the runtime may keep a stopped service alive.
    runtime.shutdown_timeout(Duration::from_secs(1));
    result
}

fn prepare(args: &ServeArgs) -> anyhow::Result<(Config, DataFolder)> {
    let Some(file) = &args.config else {
        let data = args.data.clone().unwrap_or_else(|| PathBuf::from(DEFAULT_DATA));
        let folder = DataFolder::open(&data)?;
        let listen = args.listen.unwrap_or(SocketAddr::from(([127, 0, 0, 1], 8420)));
        if !listen.ip().is_loopback() {
            anyhow::bail!("development mode listens on loopback only; write a --config file");
        }
        let admin = args.admin.unwrap_or(SocketAddr::from(([127, 0, 0, 1], 8421)));
        let mut config = Config::development(listen, admin, data, &folder.paths().demo_key())?;
        if let Some(socket) = &args.kubernetes_socket {
            config.realms.push(kubernetes::development_realm());
            kubernetes::serve_on(&mut config, socket)?;
        }
        return Ok((config, folder));
    };
    let mut config = Config::load(file)?;
    if let Some(data) = &args.data {
        config.data.clone_from(data);
    }
    config.listen = args.listen.unwrap_or(config.listen);
    config.admin_listen = args.admin.unwrap_or(config.admin_listen);
    if let Some(socket) = &args.kubernetes_socket {
        kubernetes::serve_on(&mut config, socket)?;
    }
    let folder = DataFolder::open(&config.data)?;
    Ok((config, folder))
}

/// Writes events to standard error.
pub(super) fn start_logging(logging: &Logging) -> anyhow::Result<()> {
    let level = logging.level.clone().unwrap_or_else(|| "info".to_owned());
    let filter = tracing_subscriber::EnvFilter::try_new(&level)
        .map_err(|e| anyhow::anyhow!("logging.level `{level}`: {e}"))?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false);
    let result = match logging.format {
        LogFormat::Human => builder.try_init(),
        LogFormat::Json => builder.json().try_init(),
    };
    result.map_err(|e| anyhow::anyhow!("logging: {e}"))
}

/// Thousands of connections need as many descriptors; the hard limit is the operator's word.
pub(super) fn raise_file_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let wanted = Rlimit { current: limit.maximum, maximum: limit.maximum };
    if setrlimit(Resource::Nofile, wanted).is_err() {
        tracing::warn!("the limit of open files stays at {:?}", limit.current);
    }
}

async fn serve(args: ServeArgs, config: Config, paths: Paths) -> anyhow::Result<ExitCode> {
    for warning in config.warnings() {
        tracing::warn!("{warning}");
    }
    let tls = config.tls.clone().map(Tls::load).transpose()?;
    // Bound first: an address in use is found before anything is started.
    let public = listen::bind(config.listen)?;
    let admin = listen::bind(config.admin_listen)?;
    let cluster = config.kubernetes.as_ref().map(kubernetes::bind).transpose()?.flatten();
    let store = Store::open(&config.storage.location(&paths.store())?).await?;
    let signer_at = match args.signer {
        None => SignerAt::Own,
        Some(socket) => SignerAt::Socket { socket, uid: args.signer_uid },
    };
    let (service, wal) = Service::open(config, paths.clone(), store, signer_at).await?;
    let control = control::bind(&paths.control_socket())?;

    let (stop, stopped) = tokio::sync::watch::channel(false);
    let supervisor = {
        let service = service.clone();
        let stop = stop.clone();
        std::thread::Builder::new().name("supervisor".into()).spawn(move || {
            let result = service.supervise(wal);
            // Whatever ended the supervisor ends the service.
            let _ = stop.send(true);
            result
        })?
    };
    let cluster = kubernetes::start(cluster, service.clone(), until(stopped.clone()));
    tokio::spawn(publish(service.clone(), stop.clone()));
    tokio::spawn(Digests::keep_up(service.clone()));
    audit::start(&service);
    tokio::spawn(control::serve(control, service.clone(), args.config.clone()));
    {
        let (service, tls) = (service.clone(), tls.clone());
        let again = move || reload(service.clone(), tls.clone(), args.config.clone());
        tokio::spawn(signals::obey(stop, again));
    }
    let admin_done = listen::serve(
        admin,
        http::admin(service.clone()),
        ListenOptions::default(),
        until(stopped.clone()),
    );
    let admin_task = tokio::spawn(admin_done);
    // The key sets are served whether or not a signer is there.
    tokio::spawn(announce(service.clone(), stopped.clone()));
    let options = ListenOptions { tls, ..ListenOptions::default() };
    let drained =
        listen::serve(public, http::public(service.clone()), options, until(stopped)).await;
    if drained.cut > 0 {
        tracing::warn!("{} connections were cut off", drained.cut);
    }
    let _ = cluster.await;
    admin_task.abort();
    service.issuer.stop();
    let finished = tokio::task::spawn_blocking(move || supervisor.join());
    let result = tokio::time::timeout(FINISH_WITHIN, finished).await;
    service.publish().await?;
    service.summarise().await;
    let _ = std::fs::remove_file(paths.control_socket());
    match result {
        Ok(Ok(Ok(outcome))) => outcome?,
        Ok(_) => anyhow::bail!("the supervisor thread failed"),
        Err(_) => tracing::warn!("open batches were left to the next start"),
    }
    Ok(ExitCode::SUCCESS)
}

/// Publishes as long as that can work; then it is time to stop.
async fn publish(service: Arc<Service>, stop: tokio::sync::watch::Sender<bool>) {
    service.publish_forever().await;
    let _ = stop.send(true);
}

/// Reads certificates and configuration again.
async fn reload(service: Arc<Service>, tls: Option<Arc<Tls>>, config_file: Option<PathBuf>) {
    reload_tls(tls.as_deref());
    let Some(file) = config_file else { return };
    let outcome = match Config::load(&file) {
        Ok(config) => service.reload(&config).await.map_err(|e| e.to_string()).and_then(|r| r),
        Err(e) => Err(e.to_string()),
    };
    match outcome {
        Ok(version) => tracing::info!("policy version {version} is in force"),
        Err(e) => tracing::error!("reload: {e}; until then the old policy stays"),
    }
}

/// Reads the certificates again.
pub(super) fn reload_tls(tls: Option<&Tls>) {
    if let Some(Err(e)) = tls.map(Tls::reload) {
        tracing::error!("TLS files: {e}; the old ones stay");
    }
}

/// Says what runs, once the signer is attached; nothing when the service stops before.
async fn announce(service: Arc<Service>, stopped: tokio::sync::watch::Receiver<bool>) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
    while service.attached().is_none() && tokio::time::Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(10)).await;
        if *stopped.borrow() {
            return;
        }
    }
    let config = &service.config;
    let mut lines =
        vec![format!("chancery serves {} (listening on {})", config.base_url, config.listen)];
    for realm in &service.policy().document.realms {
        let names: Vec<_> = realm.algorithms.iter().map(|a| a.as_str()).collect();
        lines.push(format!("  realm {:<16} {} ({})", realm.name, realm.issuer, names.join(", ")));
    }
    if let Some(signer) = service.attached() {
        lines.push(format!("  signer log {}", signer.vkey));
        for protection in &signer.sandbox {
            let state = if protection.in_force { "in force" } else { "MISSING" };
            lines.push(format!("  {:<14} {state}: {}", protection.name, protection.detail));
        }
        let vouches = match signer.evidence {
            Some("software") | None => ": nobody but this host vouches for the signer",
            Some(_) => ", accepted",
        };
        lines.push(format!("  evidence       {}{vouches}", signer.evidence.unwrap_or("none")));
    }
    lines.push(format!("  health and metrics on http://{}", config.admin_listen));
    if config.development {
        lines.push("  development mode: realms and a demo client, for this machine only".into());
    }
    if let Err(e) = say(&lines.join("\n")) {
        complain(&format!("standard output: {e}"));
    }
}
