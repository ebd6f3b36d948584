//! One data folder and the processes that live on it.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::port::Port;
use crate::{RealmText, TestClient, Web, config};

/// A start takes well under a second; a machine that compiles something beside gets patience.
const READY_WITHIN: Duration = Duration::from_secs(60);
/// How often a condition is looked at again.
const POLL_EVERY: Duration = Duration::from_millis(10);

/// One data folder, its service and its signer. Dropping it ends both and removes the folder.
#[derive(Debug)]
pub struct Lab {
    chancery: PathBuf,
    folder: PathBuf,
    data: PathBuf,
    public: Port,
    admin: Port,
    scheme: &'static str,
    with_config: bool,
    arguments: Vec<String>,
    service: Option<Child>,
    /// For the lab's own questions.
    pub web: Web,
}

/// How a process ended.
#[derive(Clone, Debug)]
pub struct Exit {
    /// Its exit code; `None` when a signal ended it.
    pub code: Option<i32>,
    /// The signal that ended it.
    pub signal: Option<i32>,
}

impl Lab {
    /// A lab in development mode for the binary `chancery` (a test says
    /// `env!("CARGO_BIN_EXE_chancery")`). Nothing is started yet.
    ///
    /// # Panics
    /// When the signer's binary is missing and cannot be built.
    #[must_use]
    pub fn new(chancery: &str) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let chancery = PathBuf::from(chancery);
        ensure_signer(&chancery);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("chancery-lab-{}-{number}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        fs::create_dir_all(&folder).expect("lab folder");
        // The service resolves links too, and its signer is found by its socket's path.
        let folder = fs::canonicalize(folder).expect("lab folder");
        Self {
            chancery,
            data: folder.join("data"),
            folder,
            public: Port::reserve(),
            admin: Port::reserve(),
            scheme: "http",
            with_config: false,
            arguments: Vec::new(),
            service: None,
            web: Web::new(),
        }
    }

    /// Puts the data folder elsewhere, for example on a small file system.
    pub fn set_data(&mut self, data: &Path) {
        self.data = data.to_owned();
    }

    /// Serves under `https`, for configurations with a `[tls]` table.
    pub fn set_https(&mut self) {
        self.scheme = "https";
    }

    /// Adds arguments of `chancery serve`.
    pub fn set_arguments(&mut self, arguments: &[&str]) {
        self.arguments = arguments.iter().map(|a| (*a).to_owned()).collect();
    }

    /// Writes the configuration file that `serve` gets from now on: `top` are lines before the
    /// realms.
    ///
    /// # Panics
    /// When the file cannot be written.
    pub fn configure(&mut self, top: &str, realms: &[RealmText<'_>]) {
        let (listen, admin) = (self.public.address(), self.admin.address());
        self.write_config(&config::text(&self.url(), &listen, &admin, top, realms));
    }

    /// Writes any text as the configuration file.
    ///
    /// # Panics
    /// When the file cannot be written.
    pub fn write_config(&mut self, text: &str) {
        self.with_config = true;
        fs::write(self.config_file(), text).expect("configuration file");
    }

    /// The configuration file.
    #[must_use]
    pub fn config_file(&self) -> PathBuf {
        self.folder.join("chancery.toml")
    }

    /// A folder for whatever a test needs beside the data folder.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The data folder.
    #[must_use]
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// The public URL.
    #[must_use]
    pub fn url(&self) -> String {
        format!("{}://{}", self.scheme, self.public.address())
    }

    /// The public listener's address.
    #[must_use]
    pub fn address(&self) -> String {
        self.public.address()
    }

    /// The admin listener's URL.
    #[must_use]
    pub fn admin_url(&self) -> String {
        format!("http://{}", self.admin.address())
    }

    /// A realm's issuer.
    #[must_use]
    pub fn issuer(&self, realm: &str) -> String {
        format!("{}/{realm}", self.url())
    }

    /// The demo client of development mode, after the first start.
    #[must_use]
    pub fn demo(&self) -> TestClient {
        TestClient::load("demo", &self.data.join("demo-client.pem"))
    }

    /// Starts the service without waiting for anything.
    ///
    /// # Panics
    /// When it runs already or cannot be started.
    pub fn spawn(&mut self) {
        assert!(self.service.is_none(), "the service runs already");
        let signer = self.chancery.with_file_name("chancery-signer");
        // A build beside the tests takes it away for a moment.
        wait_until("the signer's binary", READY_WITHIN, || signer.is_file());
        let log = File::options().create(true).append(true).open(self.log_file()).expect("log");
        let mut command = Command::new(&self.chancery);
        command.arg("serve").arg("--data").arg(&self.data);
        if self.with_config {
            command.arg("--config").arg(self.config_file());
        } else {
            command.arg("--listen").arg(self.public.address());
            command.arg("--admin").arg(self.admin.address());
        }
        command.args(&self.arguments).env_remove("CHANCERY_DATA").current_dir("/");
        command.stdin(Stdio::null()).stdout(log.try_clone().expect("log")).stderr(log);
        self.service = Some(command.spawn().expect("chancery serve"));
    }

    /// Starts the service and waits until it issues.
    ///
    /// # Panics
    /// When it is not ready in time.
    pub fn start(&mut self) {
        self.spawn();
        self.wait_ready();
    }

    /// Waits until `/readyz` says so.
    ///
    /// # Panics
    /// When that takes too long, or the service ended.
    pub fn wait_ready(&mut self) {
        let deadline = Instant::now() + READY_WITHIN;
        while !self.is_ready() {
            let ended = self.service.as_mut().and_then(|s| s.try_wait().ok().flatten());
            assert!(ended.is_none(), "the service ended with {ended:?}:\n{}", self.log());
            assert!(Instant::now() < deadline, "the service is not ready:\n{}", self.log());
            std::thread::sleep(POLL_EVERY);
        }
    }

    /// Whether `/readyz` says so now.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        let url = format!("{}/readyz", self.admin_url());
        self.web.try_send("GET", &url, &[], b"").is_ok_and(|a| a.status == 200)
    }

    /// What the service wrote, over all its starts.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(self.log_file()).unwrap_or_default()
    }

    fn log_file(&self) -> PathBuf {
        self.folder.join("service.log")
    }

    /// Sends the service a signal.
    ///
    /// # Panics
    /// When no service was started.
    pub fn signal(&self, signal: Signal) {
        let child = self.service.as_ref().expect("a service");
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).expect("a pid");
        kill_process(pid, signal).expect("signal");
    }

    /// `kill -9` of the service.
    ///
    /// # Panics
    /// When no service was started.
    pub fn kill_service(&mut self) {
        self.signal(Signal::KILL);
        let _ = self.wait_exit();
    }

    /// Waits until the service has ended by itself.
    ///
    /// # Panics
    /// When it does not.
    #[must_use]
    pub fn wait_exit(&mut self) -> Exit {
        let mut child = self.service.take().expect("a service");
        let deadline = Instant::now() + READY_WITHIN;
        loop {
            if let Some(status) = child.try_wait().expect("wait") {
                return status.into();
            }
            if Instant::now() > deadline {
                let _ = child.kill();
                panic!("the service does not end:\n{}", self.log());
            }
            std::thread::sleep(POLL_EVERY);
        }
    }

    /// SIGTERM, and how the service ended.
    ///
    /// # Panics
    /// When it does not end.
    #[must_use]
    pub fn stop(&mut self) -> Exit {
        self.signal(Signal::TERM);
        self.wait_exit()
    }

    /// The socket of the signer that the service starts.
    #[must_use]
    pub fn signer_socket(&self) -> PathBuf {
        self.data.join("signer.sock")
    }

    /// Process id of the lab's signer.
    #[must_use]
    pub fn signer_pid(&self) -> Option<Pid> {
        signer_on(&self.signer_socket())
    }

    /// `kill -9` of the signer; returns when it is gone.
    ///
    /// # Panics
    /// When there is none.
    pub fn kill_signer(&self) {
        let pid = self.signer_pid().expect("a signer");
        kill_process(pid, Signal::KILL).expect("kill");
        wait_until_gone(pid);
    }

    /// Runs a command of `chancery` with `--data` naming this lab at its end.
    ///
    /// # Panics
    /// When it cannot be run.
    #[must_use]
    pub fn run(&self, arguments: &[&str]) -> Output {
        let data = self.data.display().to_string();
        let mut all = arguments.to_vec();
        all.extend(["--data", &data]);
        self.run_plain(&all)
    }

    /// Runs a command of `chancery` as it stands.
    ///
    /// # Panics
    /// When it cannot be run.
    #[must_use]
    pub fn run_plain(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(&self.chancery);
        command.args(arguments).env_remove("CHANCERY_DATA").current_dir(&self.folder);
        command.stdin(Stdio::null()).output().expect("chancery")
    }

    /// Runs a command of `chancery` as it stands, with text on its standard input.
    ///
    /// # Panics
    /// When it cannot be run.
    #[must_use]
    pub fn run_with_input(&self, arguments: &[&str], input: &str) -> Output {
        let mut command = Command::new(&self.chancery);
        command.args(arguments).env_remove("CHANCERY_DATA").current_dir(&self.folder);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("chancery");
        if let Some(mut stdin) = child.stdin.take() {
            // A command that does not want all of it is judged by its answer.
            let _ = stdin.write_all(input.as_bytes());
        }
        child.wait_with_output().expect("chancery")
    }

    /// `/signers`, parsed.
    #[must_use]
    pub fn signers(&self) -> Vec<Value> {
        let url = format!("{}/signers", self.url());
        let answer = self.web.get(&url).json();
        answer.get("signers").and_then(Value::as_array).cloned().unwrap_or_default()
    }

    /// Whether a signer with another log than this one is attached. For a moment none is, while one
    /// takes the other's place.
    #[must_use]
    pub fn has_other_signer(&self, log_id: &str) -> bool {
        let is_other = |s: &Value| {
            s.get("attached") == Some(&Value::Bool(true))
                && s.get("log_id").and_then(Value::as_str) != Some(log_id)
        };
        self.signers().iter().any(is_other)
    }

    /// The log id of the attached signer.
    ///
    /// # Panics
    /// When none is attached.
    #[must_use]
    pub fn log_id(&self) -> String {
        let signers = self.signers();
        let attached = signers.iter().find(|s| s.get("attached") == Some(&Value::Bool(true)));
        let id = attached.and_then(|s| s.get("log_id")).and_then(Value::as_str);
        id.unwrap_or_else(|| panic!("no signer is attached: {signers:?}")).to_owned()
    }

    /// One token for an audience, asked for by a signed request that names the log.
    ///
    /// # Panics
    /// When it is refused.
    #[must_use]
    pub fn token(&self, client: &TestClient, realm: &str, audience: &str) -> String {
        let wanted = serde_json::json!({"aud": audience});
        let answer = self.issue(client, realm, vec![wanted]);
        let token = answer
            .json()
            .pointer("/tokens/0/access_token")
            .and_then(Value::as_str)
            .map(str::to_owned);
        token.unwrap_or_else(|| panic!("refused: {}\n{}", answer.text(), self.log()))
    }

    /// The answer to a signed request that names the log.
    #[must_use]
    pub fn issue(&self, client: &TestClient, realm: &str, wanted: Vec<Value>) -> crate::Answer {
        let request = client.request(&self.issuer(realm), Some(&self.log_id()), wanted);
        let url = format!("{}/{realm}/issue", self.url());
        self.web.send("POST", &url, &[("content-type", "application/jwt")], request.as_bytes())
    }

    /// Every log in the data folder's store. A new log is there about a second after its start.
    #[must_use]
    pub fn stored_logs(&self) -> Vec<String> {
        let entries = fs::read_dir(self.data.join("store/log")).into_iter().flatten().flatten();
        entries.filter_map(|e| e.file_name().into_string().ok()).collect()
    }

    /// Runs `chancery log check` on every log, in the folder and over HTTP; the service must run.
    /// Returns how many logs there are.
    ///
    /// # Panics
    /// When a check fails.
    #[must_use]
    pub fn check_logs(&self) -> usize {
        let mut logs = self.stored_logs();
        let attached = self.log_id();
        if !logs.contains(&attached) {
            logs.push(attached);
        }
        for log in &logs {
            let folder = self.data.join("store/log").join(log).display().to_string();
            // The folder of a living log grows under the walk, and is not there before the first
            // round of publishing: the check is repeated then.
            wait_until("`log check` of a folder", Duration::from_secs(20), || {
                self.run_plain(&["log", "check", &folder]).status.success()
            });
            let url = format!("{}/log/{log}", self.url());
            let output = self.run_plain(&["log", "check", &url]);
            let words = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "log check {url}: {words}");
        }
        logs.len()
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.log();
            let from = log.len().saturating_sub(8_192);
            let tail = log.get(log.ceil_char_boundary(from)..).unwrap_or_default();
            eprintln!("--- the service's last words:\n{tail}---");
        }
        if let Some(mut child) = self.service.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        while let Some(pid) = self.signer_pid() {
            let _ = kill_process(pid, Signal::KILL);
            wait_until_gone(pid);
        }
        let _ = fs::remove_dir_all(&self.data);
        let _ = fs::remove_dir_all(&self.folder);
    }
}

impl From<ExitStatus> for Exit {
    fn from(status: ExitStatus) -> Self {
        Self { code: status.code(), signal: status.signal() }
    }
}

/// Looks at a condition until it holds.
///
/// # Panics
/// When `within` is over.
pub fn wait_until(what: &str, within: Duration, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + within;
    while !holds() {
        assert!(Instant::now() < deadline, "{what}: not within {within:?}");
        std::thread::sleep(POLL_EVERY);
    }
}

/// Waits until a process is gone, or only waits for its parent.
///
/// # Panics
/// When it stays.
pub fn wait_until_gone(pid: Pid) {
    let stat = format!("/proc/{}/stat", pid.as_raw_pid());
    wait_until("the end of a process", Duration::from_secs(20), || {
        // The state stands behind the name, which is in parentheses (proc(5)).
        fs::read_to_string(&stat)
            .map_or(true, |s| s.rsplit(')').next().is_some_and(|r| r.trim_start().starts_with('Z')))
    });
}

/// Starts a signer by itself, as an operator does who runs it apart from the service.
///
/// # Panics
/// When it cannot be started.
#[must_use]
pub fn start_signer(chancery: &str, socket: &Path, alone_seconds: u32) -> Child {
    let chancery = PathBuf::from(chancery);
    ensure_signer(&chancery);
    let mut command = Command::new(chancery.with_file_name("chancery-signer"));
    command.arg("--socket").arg(socket);
    command.args(["--alone-seconds", &alone_seconds.to_string()]);
    let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    let child = child.expect("chancery-signer");
    wait_until("the signer's socket", Duration::from_secs(20), || socket.exists());
    child
}

/// The living signer that serves a socket.
fn signer_on(socket: &Path) -> Option<Pid> {
    let socket = socket.as_os_str().as_encoded_bytes();
    let processes = fs::read_dir("/proc").ok()?;
    processes.flatten().find_map(|process| {
        let pid: i32 = process.file_name().to_str()?.parse().ok()?;
        let line = fs::read(process.path().join("cmdline")).ok()?;
        let mut words = line.split(|b| *b == 0);
        let program = words.next()?;
        (program.ends_with(b"/chancery-signer") && words.any(|w| w == socket))
            .then(|| Pid::from_raw(pid))?
    })
}

/// Builds the signer where `cargo test -p chancery` did not: the service finds it beside itself
/// only.
fn ensure_signer(chancery: &Path) {
    static BUILT: OnceLock<()> = OnceLock::new();
    BUILT.get_or_init(|| {
        let signer = chancery.with_file_name("chancery-signer");
        if signer.is_file() {
            return;
        }
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut command = Command::new(cargo);
        command.args(["build", "-p", "chancery-signer"]).current_dir(env!("CARGO_MANIFEST_DIR"));
        if chancery.parent().is_some_and(|p| p.ends_with("release")) {
            command.arg("--release");
        }
        let built = command.status().expect("cargo build -p chancery-signer");
        assert!(built.success() && signer.is_file(), "`{}` is missing", signer.display());
    });
}
