//! The units' own command lines, as two users: the part of a deployment that systemd only starts.

use crate::recipes::Outcome;
use crate::run::{output, works};
use crate::service::{Binaries, TempFolder, free_addresses, tail, terminate, wait_within};
use anyhow::{Context as _, Result, bail, ensure};
use std::fs::{File, Permissions};
use std::net::SocketAddr;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// User and group ids that no machine is likely to use; nothing is made for them.
const SIGNER: u32 = 62_001;
const SERVICE: u32 = 62_002;
const STRANGER: u32 = 62_003;
/// From the start of a process to what is waited for; a busy machine gets patience.
const WITHIN: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(50);
const LOG_LINES: usize = 20;

/// A client's key: that of RFC 8037, appendix A, whose private half is printed there.
const CLIENT_X: &str = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo";
const CLIENT_PKCS8: &str = "MC4CAQAwBQYDK2VwBCIEIJ1hsZ3v/VpguoRK9JLsLMREScVpezJpGXA7rAMcrn9g";

/// Runs signer and service as the units start them, and whoever else tries.
pub fn try_as_two_users(root: &Path) -> Result<Outcome> {
    if output(Command::new("id").arg("-u"))?.trim() != "0" {
        return Ok(Outcome::Skipped("two users need root; the units themselves are right".into()));
    }
    if !works(Command::new("setpriv").arg("--version")) {
        return Ok(Outcome::Skipped("`setpriv` (util-linux) is not installed".into()));
    }
    let stage = Stage::new(root)?;
    let mut signer = stage.signer()?;
    let mut service = stage.service()?;
    stage.await_token(&mut service)?;
    println!("deploy: a token, with signer and service as two users");

    // One peer at a time: with the service there, nobody else is even looked at.
    drop(service);
    stage.service_is_told_of_strangers()?;
    stage.strangers_get_no_word()?;
    service = stage.service()?;
    stage.await_token(&mut service)?;
    println!("deploy: no other user is served, not even one of the signer's group");

    // What `Restart=always` does: the signer is dead for good, and the service takes the next.
    drop(signer);
    signer = stage.signer()?;
    stage.await_token(&mut service)?;
    println!("deploy: the next signer was attached to");
    drop(service);
    drop(signer);
    Ok(Outcome::Passed)
}

/// A process that ends with its name, and its log.
struct Running {
    process: Child,
    log: PathBuf,
}

impl Running {
    fn log_tail(&self) -> String {
        tail(&std::fs::read_to_string(&self.log).unwrap_or_default(), LOG_LINES)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        terminate(&mut self.process);
    }
}

/// Folders as the units make them, below one that everybody may enter.
struct Stage {
    folder: TempFolder,
    units: PathBuf,
    addresses: (SocketAddr, SocketAddr),
}

impl Stage {
    fn new(root: &Path) -> Result<Self> {
        let folder = TempFolder::new("deploy-users")?;
        let stage =
            Self { folder, units: root.join("deploy/systemd"), addresses: free_addresses()? };
        let binaries = Binaries::build(root)?;
        stage.own("", 0, 0, 0o755)?;
        stage.own("bin", 0, 0, 0o755)?;
        for name in ["chancery", "chancery-signer"] {
            std::fs::copy(binaries.folder.join(name), stage.path("bin").join(name))
                .with_context(|| format!("cannot copy {name}"))?;
        }
        stage.own("state", SERVICE, SERVICE, 0o700)?;
        for user in [SIGNER, SERVICE, STRANGER] {
            stage.own(&format!("home-{user}"), user, user, 0o700)?;
        }
        std::fs::write(stage.path("chancery.toml"), stage.configuration())?;
        let pem =
            format!("-----BEGIN PRIVATE KEY-----\n{CLIENT_PKCS8}\n-----END PRIVATE KEY-----\n");
        std::fs::write(stage.path("client.pem"), pem)?;
        Ok(stage)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn own(&self, name: &str, user: u32, group: u32, mode: u32) -> Result<()> {
        let path = self.path(name);
        std::fs::create_dir_all(&path)?;
        chown(&path, Some(user), Some(group)).with_context(|| format!("cannot own {path:?}"))?;
        Ok(std::fs::set_permissions(&path, Permissions::from_mode(mode))?)
    }

    fn configuration(&self) -> String {
        let (listen, admin) = self.addresses;
        format!(
            "base_url = \"http://{listen}\"\nlisten = \"{listen}\"\nadmin_listen = \"{admin}\"\n\
             data = \"{}\"\nwal_segment_mib = 1\n\n[[realms]]\nname = \"main\"\n\
             issuer = \"http://{listen}/main\"\nalgorithms = [\"ES256\"]\n\n\
             [[realms.clients]]\nid = \"orders\"\nkeys = [{{ kty = \"OKP\", crv = \"Ed25519\", \
             x = \"{CLIENT_X}\" }}]\n\n[[realms.clients.grants]]\nname = \"orders to stock\"\n\
             audiences = [\"https://stock.example\"]\n",
            self.path("state").display()
        )
    }

    /// The command of a unit, with this stage's folders and users in it.
    fn command_of(&self, unit: &str) -> Result<Vec<String>> {
        let text = std::fs::read_to_string(self.units.join(unit)).context("unit")?;
        let line = text.lines().find_map(|line| line.strip_prefix("ExecStart="));
        let folder = self.folder.path().display();
        let line = line
            .with_context(|| format!("{unit} starts nothing"))?
            .replace("/usr/local/bin/", &format!("{folder}/bin/"))
            .replace("/run/chancery-signer/", &format!("{folder}/run/"))
            .replace("/etc/chancery/", &format!("{folder}/"))
            .replace("${SIGNER_UID}", &SIGNER.to_string())
            .replace("${SERVICE_UID}", &SERVICE.to_string());
        Ok(line.split_whitespace().map(str::to_owned).collect())
    }

    /// Starts a command as a user who is in that user's own group, and in `group`.
    fn start(&self, user: u32, group: u32, command: &[String]) -> Result<Running> {
        let log = self.path(&format!("{user}.log"));
        let file = File::options().create(true).append(true).open(&log)?;
        let (user, group) = (user.to_string(), group.to_string());
        let mut process = Command::new("setpriv");
        process.args(["--reuid", &user, "--regid", &user, "--groups", &group]);
        process.args(["--no-new-privs", "--bounding-set=-all", "--"]).args(command);
        process.current_dir(self.path(&format!("home-{user}"))).env_clear();
        process.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
        let process = process.spawn().context("cannot start setpriv")?;
        Ok(Running { process, log })
    }

    /// The signer, in a folder that systemd would make anew.
    fn signer(&self) -> Result<Running> {
        let run = self.path("run");
        let _ = std::fs::remove_dir_all(&run);
        self.own("run", SIGNER, SIGNER, 0o750)?;
        let command = self.command_of("chancery-signer.service")?;
        let mut signer = self.start(SIGNER, SIGNER, &command)?;
        let socket = run.join("socket");
        wait_for(|| Ok(socket.exists()), &mut signer, "no socket")?;
        let mode = std::fs::metadata(&socket)?.permissions().mode() & 0o777;
        ensure!(mode == 0o660, "the socket has mode {mode:o}");
        Ok(signer)
    }

    fn service(&self) -> Result<Running> {
        self.start(SERVICE, SIGNER, &self.command_of("chancery.service")?)
    }

    fn await_token(&self, service: &mut Running) -> Result<()> {
        let chancery = self.path("bin/chancery");
        let token = || -> Result<bool> {
            let mut command = Command::new(&chancery);
            command.args(["token", "--realm", "main", "--client", "orders", "--audience"]);
            command.arg("https://stock.example").arg("--key").arg(self.path("client.pem"));
            command.arg("--data").arg(self.path("state"));
            let said = command.stderr(Stdio::null()).output().context("cannot start chancery")?;
            Ok(said.status.success() && said.stdout.split(|b| *b == b'.').count() == 3)
        };
        wait_for(token, service, "no token")
    }

    /// The service refuses a signer of another user than it was told, before it says a word.
    fn service_is_told_of_strangers(&self) -> Result<()> {
        let socket = format!("unix:{}", self.path("run/socket").display());
        let mut service = self.other_service(STRANGER, &["--signer", &socket])?;
        let said = format!("user `{SIGNER}` listens on the signer's socket");
        let log = service.log.clone();
        let found = || Ok(std::fs::read_to_string(&log)?.contains(&said));
        wait_for(found, &mut service, "the signer was not told from a stranger")
    }

    /// The signer sends a user away that it was not told of, though its group may open the socket.
    fn strangers_get_no_word(&self) -> Result<()> {
        let socket = format!("unix:{}", self.path("run/socket").display());
        let signer = SIGNER.to_string();
        let arguments = ["--signer", &socket, "--signer-uid", &signer];
        let mut service = self.other_service(STRANGER, &arguments)?;
        let log = service.log.clone();
        let found = || Ok(std::fs::read_to_string(&log)?.contains("no signer: the signer ended"));
        wait_for(found, &mut service, "a stranger was not sent away")?;
        ensure!(!std::fs::read_to_string(&log)?.contains("attached to the signer"), "attached");
        Ok(())
    }

    /// A service in development mode, of another user.
    fn other_service(&self, user: u32, arguments: &[&str]) -> Result<Running> {
        let (listen, admin) = free_addresses()?;
        let chancery = self.path("bin/chancery").display().to_string();
        // Each attempt is a new deployment: its data folder is named after its port.
        let data = format!("data-{}", listen.port());
        let mut command = vec![chancery, "serve".into(), "--data".into(), data];
        command.extend(["--listen".into(), listen.to_string()]);
        command.extend(["--admin".into(), admin.to_string()]);
        command.extend(arguments.iter().map(|&argument| argument.to_owned()));
        self.start(user, SIGNER, &command)
    }
}

/// Waits for a condition while a process lives.
fn wait_for(
    mut condition: impl FnMut() -> Result<bool>,
    process: &mut Running,
    otherwise: &str,
) -> Result<()> {
    let started = Instant::now();
    while !condition()? {
        if let Some(status) = wait_within(&mut process.process, POLL)? {
            bail!("{otherwise}: ended with {status}:\n{}", process.log_tail());
        }
        if started.elapsed() > WITHIN {
            bail!("{otherwise} within {} s:\n{}", WITHIN.as_secs(), process.log_tail());
        }
    }
    Ok(())
}
