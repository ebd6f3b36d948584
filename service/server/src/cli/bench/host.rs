//! A real service with a real signer beside it, as child processes in a folder of their own, and
//! what the operating system says of them.

use std::fs::{DirBuilder, File};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use chancery_policy::document::ClientDocument;
use chancery_policy::{RealmDocument, Schedule};
use chancery_token::Algorithm;
use rustix::process::{Pid, Signal, kill_process};
use serde::Serialize;
use serde_json::Value;

use super::witness::{self, Witness};
use crate::cli::fetch::Web;
use crate::cli::send;
use crate::control;

/// The one realm.
pub const REALM: &str = "bench";
/// `utime` and `stime` in `/proc/PID/stat` are in units of this many a second on every
/// architecture of Linux (`USER_HZ`).
const USER_HZ: f64 = 100.0;
/// A service with prewritten segments and a first key is up within this time; RSA takes longest.
const READY_WITHIN: Duration = Duration::from_secs(60);
/// A service that was told to stop has stopped within this time.
const STOP_WITHIN: Duration = Duration::from_secs(20);

/// A folder that is removed in the end.
pub struct WorkFolder(pub PathBuf);

impl WorkFolder {
    /// A new folder below `parent`, or below the system's folder for temporary files.
    pub fn make(parent: Option<&Path>) -> anyhow::Result<Self> {
        let parent = parent.map_or_else(std::env::temp_dir, Path::to_path_buf);
        let path = parent.join(format!("chancery-bench-{}", std::process::id()));
        let made = DirBuilder::new().recursive(true).mode(0o700).create(&path);
        made.map_err(|e| anyhow::anyhow!("folder `{}`: {e}; name another --data", path.display()))?;
        Ok(Self(path))
    }
}

impl Drop for WorkFolder {
    fn drop(&mut self) {
        // What is left behind says itself whose it was.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// What the realm does.
pub struct Setup {
    /// Algorithm of its tokens.
    pub algorithm: Algorithm,
    /// The life of its keys.
    pub schedule: Schedule,
    /// Who may ask.
    pub clients: Vec<ClientDocument>,
    /// Whether tokens wait for a witness.
    pub witnessed: bool,
}

/// The configuration file, default in everything that is not named.
#[derive(Serialize)]
struct ConfigFile {
    base_url: String,
    listen: SocketAddr,
    admin_listen: SocketAddr,
    data: PathBuf,
    #[serde(skip_serializing_if = "Option::is_none")]
    release: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    quorum: Option<&'static str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    witness: Vec<witness::Entry>,
    realms: Vec<RealmDocument>,
}

/// A running service.
pub struct Host {
    /// The public listener.
    pub address: SocketAddr,
    /// The realm's issuer.
    pub issuer: String,
    /// The signer's log.
    pub log: String,
    admin: SocketAddr,
    web: Web,
    service: Child,
    signer: u32,
    data: PathBuf,
    witness: Option<Witness>,
}

/// CPU and disk that the processes used so far.
#[derive(Clone, Copy, Debug, Default)]
pub struct Usage {
    /// CPU seconds of the service.
    pub service_s: f64,
    /// CPU seconds of the signer.
    pub signer_s: f64,
    /// Bytes of records in the write-ahead log.
    pub logged_bytes: u64,
    /// Its durable writes.
    pub commits: u64,
    /// CPU seconds that the machine spent on anything but service, signer and this process.
    pub others_s: f64,
}

impl Host {
    /// Starts both processes and waits until a key signs.
    pub fn start(folder: &Path, setup: Setup) -> anyhow::Result<Self> {
        let (address, admin) = (free_port()?, free_port()?);
        let base_url = format!("http://{address}");
        let issuer = format!("{base_url}/{REALM}");
        let data = folder.join("data");
        let realm = RealmDocument {
            name: REALM.to_owned(),
            issuer: issuer.clone(),
            algorithms: vec![setup.algorithm],
            rsa_bits: 2048,
            kubernetes: None,
            schedule: setup.schedule,
            clients: setup.clients,
        };
        std::fs::create_dir_all(folder)?;
        let (witness, entry) = match setup.witnessed {
            true => Some(Witness::prepare(folder, free_port()?, free_port()?)?).unzip(),
            false => (None, None),
        };
        let file = ConfigFile {
            base_url,
            listen: address,
            admin_listen: admin,
            data: data.clone(),
            release: setup.witnessed.then_some("witnessed"),
            quorum: setup.witnessed.then_some(witness::QUORUM),
            witness: entry.into_iter().collect(),
            realms: vec![realm],
        };
        let config = folder.join("chancery.toml");
        std::fs::write(&config, toml::to_string(&file)?)?;
        let words = folder.join("service.log");
        let service = Command::new(std::env::current_exe()?)
            .arg("serve")
            .arg("--config")
            .arg(&config)
            .env_clear()
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&words)?)
            .spawn()?;
        let mut host = Self {
            address,
            issuer,
            log: String::new(),
            admin,
            web: Web::new(),
            service,
            signer: 0,
            data,
            witness,
        };
        if let Err(e) = host.wait_until_ready().and_then(|()| host.wait_until_witnessed()) {
            let words = std::fs::read_to_string(&words).unwrap_or_default();
            anyhow::bail!("the service did not start: {e}\n{words}");
        }
        Ok(host)
    }

    fn wait_until_ready(&mut self) -> anyhow::Result<()> {
        let deadline = Instant::now() + READY_WITHIN;
        loop {
            if let Some(status) = self.service.try_wait()? {
                anyhow::bail!("it ended with {status}");
            }
            if self.web.get(&format!("http://{}/readyz", self.admin)).is_ok()
                && self.has_active_key()
            {
                break;
            }
            if Instant::now() > deadline {
                anyhow::bail!("it is not ready after {READY_WITHIN:?}");
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let info = send(&self.data, &control::Command::Info)?;
        let log = info.get("signer").and_then(|s| s.get("log_id")).and_then(Value::as_str);
        self.log = log.unwrap_or_default().to_owned();
        self.signer = child_of(self.service.id())
            .ok_or_else(|| anyhow::anyhow!("the service has no signer process"))?;
        Ok(())
    }

    /// Starts the witness, if there is one, and waits until it cosigned.
    fn wait_until_witnessed(&mut self) -> anyhow::Result<()> {
        let Some(witness) = &mut self.witness else { return Ok(()) };
        let directory = format!("http://{}/directory", self.address);
        let vkey = String::from_utf8(self.web.get(&format!("{directory}/vkey"))?)?;
        witness.start(vkey.trim_end())?;
        let deadline = Instant::now() + READY_WITHIN;
        loop {
            let note = self.web.get(&format!("{directory}/checkpoint")).unwrap_or_default();
            if String::from_utf8_lossy(&note).contains(&format!(" {} ", witness::NAME)) {
                return Ok(());
            }
            if Instant::now() > deadline {
                anyhow::bail!("the witness did not cosign within {READY_WITHIN:?}");
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn has_active_key(&self) -> bool {
        let Ok(answer) = send(&self.data, &control::Command::Keys) else { return false };
        let keys = answer.get("keys").and_then(Value::as_array);
        let state = |key: &Value| key.get("state").and_then(Value::as_str) == Some("active");
        keys.is_some_and(|keys| keys.iter().any(state))
    }

    /// What the processes used so far.
    pub fn usage(&self) -> anyhow::Result<Usage> {
        let metrics = self.web.get(&format!("http://{}/metrics", self.admin))?;
        let metrics = String::from_utf8_lossy(&metrics);
        let service_s = cpu_seconds(self.service.id())?;
        let signer_s = cpu_seconds(self.signer)?;
        let own_s = cpu_seconds(std::process::id())?;
        Ok(Usage {
            service_s,
            signer_s,
            others_s: busy_seconds() - service_s - signer_s - own_s,
            logged_bytes: counter(&metrics, "chancery_wal_bytes_total "),
            commits: counter(&metrics, "chancery_wal_append_seconds_count "),
        })
    }

    /// Bytes of all objects in the store.
    pub fn stored_bytes(&self) -> u64 {
        folder_bytes(&self.data.join("store"))
    }

    /// Ends both processes.
    pub fn stop(mut self) -> anyhow::Result<()> {
        terminate(self.service.id());
        let deadline = Instant::now() + STOP_WITHIN;
        while self.service.try_wait()?.is_none() {
            if Instant::now() > deadline {
                anyhow::bail!("the service did not stop");
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = self.service.kill();
        let _ = self.service.wait();
        // It would end by itself after a minute alone.
        terminate(self.signer);
    }
}

fn terminate(pid: u32) {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    if let Some(pid) = pid {
        // A process that is gone already is what is wanted.
        let _ = kill_process(pid, Signal::TERM);
    }
}

fn free_port() -> anyhow::Result<SocketAddr> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}

/// The fields of `/proc/PID/stat` behind the name, which may hold anything.
fn stat_fields(pid: &str) -> Option<Vec<String>> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = text.rsplit_once(')')?;
    Some(rest.split_whitespace().map(str::to_owned).collect())
}

fn child_of(parent: u32) -> Option<u32> {
    let parent = parent.to_string();
    for entry in std::fs::read_dir("/proc").ok()?.flatten() {
        let name = entry.file_name();
        let Some(pid) = name.to_str().filter(|n| n.bytes().all(|b| b.is_ascii_digit())) else {
            continue;
        };
        // State, then the parent: proc_pid_stat(5), fields 3 and 4.
        if stat_fields(pid).is_some_and(|f| f.get(1) == Some(&parent)) {
            return pid.parse().ok();
        }
    }
    None
}

/// User and system time of all threads, those that ended included: the kernel keeps the exact sum
/// and shows it in ticks, so over seconds the error is below a percent.
fn cpu_seconds(pid: u32) -> anyhow::Result<f64> {
    let fields = stat_fields(&pid.to_string())
        .ok_or_else(|| anyhow::anyhow!("process {pid} ended during the run"))?;
    // Fields 14 and 15, counted from the state as the third.
    let ticks = |at: usize| fields.get(at).and_then(|f| f.parse::<f64>().ok()).unwrap_or(0.0);
    Ok((ticks(11) + ticks(12)) / USER_HZ)
}

/// CPU time of the whole machine: every column of proc_stat(5) but idle, waiting for disks, and the
/// guests' that are counted in user time already.
fn busy_seconds() -> f64 {
    let text = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    let columns = text.lines().next().unwrap_or_default().split_whitespace().skip(1).take(8);
    let ticks = columns.enumerate().filter(|(at, _)| !matches!(at, 3 | 4));
    ticks.filter_map(|(_, n)| n.parse::<f64>().ok()).sum::<f64>() / USER_HZ
}

fn counter(metrics: &str, name: &str) -> u64 {
    let line = metrics.lines().find_map(|l| l.strip_prefix(name));
    line.and_then(|n| n.trim().parse().ok()).unwrap_or(0)
}

fn folder_bytes(folder: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(folder) else { return 0 };
    let size = |entry: std::fs::DirEntry| match entry.metadata() {
        Ok(meta) if meta.is_dir() => folder_bytes(&entry.path()),
        Ok(meta) => meta.size(),
        Err(_) => 0,
    };
    entries.flatten().map(size).fold(0, u64::saturating_add)
}
