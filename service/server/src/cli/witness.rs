//! `chancery witness`: cosigns other people's logs.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;

use super::say;
use super::serve::{raise_file_limit, reload_tls, start_logging};
use super::signals::{self, until};
use crate::folder::DataFolder;
use crate::listen::{self, Limits, ListenOptions, Tls};
use crate::witness::{Cosigner, Folder, Witness, WitnessConfig, admin, load_or_make, public};

/// A request is judged and stored in milliseconds; a client that sends it slowly is cut off.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// A log waits for each answer before it sends more; this many requests fit into 32 MiB.
const MAX_REQUESTS: usize = 256;
/// Logs and monitors keep a connection each.
const MAX_CONNECTIONS: usize = 1_024;

/// `chancery witness`
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  chancery witness --name witness.example/w1 \
    --log 'example.com/log+1b2c3d4e+AZ...'\n\ndocs/witness.md says how to run one for others.")]
pub struct WitnessArgs {
    /// Configuration file (docs/witness.md)
    #[arg(long, required_unless_present = "name", conflicts_with_all = ["name", "log"])]
    config: Option<PathBuf>,
    /// Name of the witness: a URL without scheme
    #[arg(long)]
    name: Option<String>,
    /// Verifier key of a log that is witnessed; may be repeated
    #[arg(long, value_name = "VKEY")]
    log: Vec<String>,
    /// Data folder
    #[arg(long)]
    data: Option<PathBuf>,
    /// Address for logs and monitors
    #[arg(long)]
    listen: Option<SocketAddr>,
    /// Address of health and metrics
    #[arg(long)]
    admin: Option<SocketAddr>,
    /// Print the verifier keys and stop; makes the keys where there are none
    #[arg(long)]
    keys: bool,
    /// Take a key that never cosigned anything into use with this data folder
    #[arg(long)]
    without_history: bool,
}

/// Runs until SIGTERM or SIGINT.
pub fn run(args: &WitnessArgs) -> anyhow::Result<ExitCode> {
    let config = configuration(args)?;
    let logs = config.logs()?;
    // Locked as long as this lives: two witnesses with one memory would each undo the other's.
    let _folder = DataFolder::open(&config.data)?;
    let disk = Folder::open(&config.data, config.second_copy.as_deref())
        .with_context(|| format!("data folder `{}`", config.data.display()))?;
    let cosigners = load_or_make(
        &config.name,
        &config.key_folder(),
        &config.data,
        &disk,
        config.ml_dsa_44,
        args.without_history,
    )?;
    if args.keys {
        for cosigner in &cosigners {
            say(&cosigner.vkey().to_string())?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    start_logging(&config.logging)?;
    raise_file_limit();
    for warning in config.warnings() {
        tracing::warn!("{warning}");
    }
    let greeting = greeting(&config, &cosigners, logs.len());
    let witness = Witness::new(cosigners, logs, Arc::new(disk), crate::now)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let result = runtime.block_on(serve(&config, witness, &greeting));
    runtime.shutdown_timeout(Duration::from_secs(1));
    result
}

fn configuration(args: &WitnessArgs) -> anyhow::Result<WitnessConfig> {
    let mut config = match (&args.config, &args.name) {
        (Some(file), _) => WitnessConfig::load(file)?,
        (None, Some(name)) => WitnessConfig::new(name, &args.log),
        (None, None) => anyhow::bail!("give --config or --name"),
    };
    if let Some(data) = &args.data {
        config.data.clone_from(data);
    }
    config.listen = args.listen.unwrap_or(config.listen);
    config.admin_listen = args.admin.unwrap_or(config.admin_listen);
    Ok(config)
}

fn greeting(config: &WitnessConfig, cosigners: &[Cosigner], logs: usize) -> String {
    let mut lines =
        vec![format!("chancery witness `{}` listens on {}", config.name, config.listen)];
    lines.extend(cosigners.iter().map(|cosigner| format!("  vkey {}", cosigner.vkey())));
    lines.push(format!("  {logs} logs; health and metrics on http://{}", config.admin_listen));
    lines.join("\n")
}

async fn serve(
    config: &WitnessConfig,
    witness: Arc<Witness>,
    greeting: &str,
) -> anyhow::Result<ExitCode> {
    let tls = config.tls.clone().map(Tls::load).transpose()?;
    let socket = listen::bind(config.listen)?;
    let admin_socket = listen::bind(config.admin_listen)?;
    say(greeting)?;

    let (stop, stopped) = tokio::sync::watch::channel(false);
    let certificates = tls.clone();
    tokio::spawn(signals::obey(stop, move || {
        reload_tls(certificates.as_deref());
        std::future::ready(())
    }));
    let health = listen::serve(
        admin_socket,
        admin(witness.clone()),
        ListenOptions::default(),
        until(stopped.clone()),
    );
    let health = tokio::spawn(health);
    let limits = Limits {
        max_connections: MAX_CONNECTIONS,
        max_requests: MAX_REQUESTS,
        request_timeout: ANSWER_WITHIN,
        ..Limits::default()
    };
    let router = public(witness, config.requests_per_s, &config.trusted_proxies);
    let drained =
        listen::serve(socket, router, ListenOptions { tls, limits }, until(stopped)).await;
    if drained.cut > 0 {
        tracing::warn!("{} connections were cut off", drained.cut);
    }
    health.abort();
    Ok(ExitCode::SUCCESS)
}
