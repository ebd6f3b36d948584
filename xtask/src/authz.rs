//! `cargo xtask authz`: real nginx in front of a small application, asking `chancery authz` about
//! every request, with the configuration that docs/authz.md shows.
//!
//! Every case is one HTTP request over a socket, written out, because half of them are requests that
//! no HTTP client would send. What nginx lets in is looked at in the application; what it does not
//! let in must not arrive there at all. Envoy has no package here: its questions are asked as its
//! documentation gives them (`http_service`: method and path kept behind the prefix, `:authority`,
//! `content-length: 0`).

mod application;
mod nginx;
mod paths;
mod wire;

use crate::recipes::{Outcome, flag};
use crate::run::{output, shown};
use crate::service::{Binaries, Service, TempFolder, free_addresses, tail, terminate};
use anyhow::{Context as _, Result, bail, ensure};
use application::Application;
use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use wire::{Answer, exchange, request};

const AUDIENCE: &str = "https://api.example";
const OTHER_AUDIENCE: &str = "https://orders.example";
/// Seconds of tolerance that authz gets, so that a token expires while the recipe waits.
const LEEWAY_S: &str = "1";
/// The lifetime of that token, and how long it is waited for.
const SHORT_S: &str = "1";
const EXPIRED_AFTER: Duration = Duration::from_millis(3_500);
/// From the start of a process to its first answer.
const UP_WITHIN: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(50);
/// The load: enough connections that neither nginx nor authz waits for the other.
const LOAD_CONNECTIONS: usize = 8;
const LOAD_FOR: Duration = Duration::from_secs(3);

/// Installs nginx where that is possible, and tries everything (`--release`: with figures that mean
/// something).
pub fn recipe(root: &Path, arguments: &[String]) -> Result<Outcome> {
    let release = flag(arguments, "--release")?;
    if let Err(reason) = nginx::install() {
        return Ok(Outcome::Skipped(reason));
    }
    let binaries = if release { Binaries::build_release(root)? } else { Binaries::build(root)? };
    let folder = TempFolder::new("authz")?;
    let service = Service::development(&binaries, folder.path())?;
    let tokens = Tokens::get(&binaries, &service)?;

    let application = Application::start()?;
    let ports = Ports::free(application.address())?;
    let mut authz = Authz::start(&binaries, &service, folder.path(), &ports)?;
    let nginx = nginx::Nginx::start(root, folder.path(), &ports)?;
    let told = |error: anyhow::Error, authz: &Authz| {
        error.context(format!("nginx:\n{}\nauthz:\n{}", nginx.log_tail(), authz.log_tail()))
    };

    let judge = Judge { ports: &ports, application: &application };
    judge.accepted(&tokens).map_err(|e| told(e, &authz))?;
    judge.denied(&tokens).map_err(|e| told(e, &authz))?;
    judge.scopes(&tokens).map_err(|e| told(e, &authz))?;
    judge.paths(&tokens).map_err(|e| told(e, &authz))?;
    judge.envoy(&tokens).map_err(|e| told(e, &authz))?;
    judge.counted().map_err(|e| told(e, &authz))?;
    judge.load(&tokens).map_err(|e| told(e, &authz))?;

    ensure!(authz.stop()?, "authz did not end well after SIGTERM:\n{}", authz.log_tail());
    judge.unavailable(&tokens, "authz is not there").map_err(|e| told(e, &authz))?;
    // A new one, whose issuer is not there: it has no key set, and says so.
    drop(service);
    let orphan = Authz::again(authz)?;
    judge.unavailable(&tokens, "authz has no key set").map_err(|e| told(e, &orphan))?;
    judge.not_ready().map_err(|e| told(e, &orphan))?;
    Ok(Outcome::Passed)
}

/// Where everybody listens.
#[derive(Clone, Copy, Debug)]
pub struct Ports {
    authz: SocketAddr,
    admin: SocketAddr,
    nginx: SocketAddr,
    application: SocketAddr,
}

impl Ports {
    fn free(application: SocketAddr) -> Result<Self> {
        let (authz, admin) = free_addresses()?;
        let (nginx, _) = free_addresses()?;
        Ok(Self { authz, admin, nginx, application })
    }
}

/// The tokens that are sent.
struct Tokens {
    good: String,
    read: String,
    scoped: String,
    other_audience: String,
    other_realm: String,
    forged: String,
    expired: String,
}

impl Tokens {
    fn get(binaries: &Binaries, service: &Service) -> Result<Self> {
        let ask = |realm: &str, audience: &str, more: &[&str]| {
            let mut command = Command::new(&binaries.chancery);
            command.args(["token", "--data"]).arg(service.data());
            command.args(["--realm", realm, "--audience", audience]).args(more);
            Ok::<_, anyhow::Error>(output(&mut command)?.trim_end().to_owned())
        };
        let expired = ask("consumers", AUDIENCE, &["--lifetime", SHORT_S])?;
        let gone = Instant::now();
        let subject = ["--subject", "user:17"];
        let good = ask("consumers", AUDIENCE, &subject)?;
        let (head, signature) = good.rsplit_once('.').context("a token has three parts")?;
        let other = if signature.starts_with('A') { "B" } else { "A" };
        let forged = format!("{head}.{other}{}", signature.get(1..).unwrap_or_default());
        let tokens = Self {
            read: ask("consumers", AUDIENCE, &["--scope", "read"])?,
            scoped: ask("consumers", AUDIENCE, &["--scope", "read write"])?,
            other_audience: ask("consumers", OTHER_AUDIENCE, &[])?,
            other_realm: ask("organizations", AUDIENCE, &[])?,
            good,
            forged,
            expired,
        };
        std::thread::sleep(EXPIRED_AFTER.saturating_sub(gone.elapsed()));
        Ok(tokens)
    }
}

/// A running `chancery authz`.
struct Authz {
    command: Vec<String>,
    chancery: PathBuf,
    process: Child,
    log: PathBuf,
    ports: Ports,
}

impl Authz {
    fn start(binaries: &Binaries, service: &Service, folder: &Path, ports: &Ports) -> Result<Self> {
        let issuer = format!("{}/consumers", service.url());
        let (listen, admin) = (ports.authz.to_string(), ports.admin.to_string());
        let headers = "subject,issuer,client,scope,expires,claims";
        let command = ["authz", "--issuer", &issuer, "--audience", AUDIENCE, "--listen", &listen]
            .into_iter()
            .chain(["--admin", &admin, "--leeway", LEEWAY_S, "--headers", headers]);
        let command = command.map(str::to_owned).collect();
        let log = folder.join("authz.log");
        let authz = Self::spawn(command, binaries.chancery.clone(), log, *ports)?;
        let ready = || exchange(ports.admin, &request("GET", "/readyz", &[]));
        await_up("authz", || ready().is_ok_and(|answer| answer.status == 200))
            .with_context(|| authz.log_tail())?;
        Ok(authz)
    }

    /// The same command once more.
    fn again(authz: Self) -> Result<Self> {
        let log = authz.log.with_extension("again.log");
        let new = Self::spawn(authz.command.clone(), authz.chancery.clone(), log, authz.ports)?;
        let up = || exchange(new.ports.admin, &request("GET", "/healthz", &[]));
        await_up("authz", || up().is_ok_and(|answer| answer.status == 200))?;
        Ok(new)
    }

    fn spawn(
        arguments: Vec<String>,
        chancery: PathBuf,
        log: PathBuf,
        ports: Ports,
    ) -> Result<Self> {
        let file = File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
        let mut command = Command::new(&chancery);
        command.args(&arguments).stdin(Stdio::null());
        println!("$ {}", shown(&command));
        let process = command.stdout(file.try_clone()?).stderr(file).spawn();
        let process = process.with_context(|| format!("cannot start `{}`", shown(&command)))?;
        Ok(Self { command: arguments, chancery, process, log, ports })
    }

    /// Whether it ends with success when it is asked to.
    fn stop(&mut self) -> Result<bool> {
        terminate(&mut self.process);
        Ok(self.process.wait()?.success())
    }

    fn log_tail(&self) -> String {
        tail(&std::fs::read_to_string(&self.log).unwrap_or_default(), 20)
    }
}

impl Drop for Authz {
    fn drop(&mut self) {
        terminate(&mut self.process);
    }
}

fn await_up(what: &str, mut up: impl FnMut() -> bool) -> Result<()> {
    let started = Instant::now();
    while !up() {
        if started.elapsed() > UP_WITHIN {
            bail!("{what} was not up within {} s", UP_WITHIN.as_secs());
        }
        std::thread::sleep(POLL);
    }
    Ok(())
}

fn bearer(token: &str) -> String {
    format!("Bearer {token}")
}

/// A name, a path, the headers, and the status that nginx must answer.
type Case<'a> = (&'a str, &'a str, &'a [(&'a str, &'a str)], u16);

/// Sends requests and looks at what became of them.
struct Judge<'a> {
    ports: &'a Ports,
    application: &'a Application,
}

impl Judge<'_> {
    fn ask(&self, path: &str, headers: &[(&str, &str)]) -> Result<Answer> {
        exchange(self.ports.nginx, &request("GET", path, headers))
    }

    /// What the application saw of a request that was let in.
    fn let_in(&self, path: &str, headers: &[(&str, &str)]) -> Result<Answer> {
        let answer = self.ask(path, headers)?;
        ensure!(answer.status == 200, "not let in at {path}: {answer:?}");
        Ok(answer)
    }

    fn accepted(&self, tokens: &Tokens) -> Result<()> {
        let token = bearer(&tokens.good);
        let seen = self.let_in("/orders/1?x=y", &[("Authorization", &token)])?.body;
        for line in ["GET /orders/1?x=y HTTP/1.0", "x-chancery-subject: user:17"] {
            ensure!(seen.lines().any(|l| l == line), "`{line}` did not arrive:\n{seen}");
        }
        for name in ["issuer", "client", "expires", "claims"] {
            let found = seen.contains(&format!("\nx-chancery-{name}: "));
            ensure!(found, "x-chancery-{name} did not arrive:\n{seen}");
        }
        for name in ["authorization", "x-chancery-scope", "x-chancery-require-scope"] {
            ensure!(!seen.contains(&format!("\n{name}:")), "{name} arrived:\n{seen}");
        }
        // Whatever a client says under these names, in any spelling, does not arrive.
        let names = ["Subject", "Issuer", "Client", "Scope", "Token", "Expires", "Log", "Claims"];
        let lies = names.map(|name| format!("X-Chancery-{name}"));
        let lower = lies.clone().map(|name| name.to_lowercase());
        let underscored = lies.clone().map(|name| name.replace('-', "_"));
        let lies = lies.iter().chain(&lower).chain(&underscored);
        let mut headers: Vec<_> = lies.map(|name| (name.as_str(), "made up")).collect();
        headers.push(("Authorization", &token));
        let seen = self.let_in("/", &headers)?.body;
        ensure!(!seen.contains("made up"), "a client's own header arrived:\n{seen}");
        ensure!(seen.contains("\nx-chancery-subject: user:17\n"), "{seen}");
        println!("accepted: a good token, and no header that its client made up");
        Ok(())
    }

    fn denied(&self, tokens: &Tokens) -> Result<()> {
        let before = self.application.requests();
        let long = format!("Bearer {}", "a".repeat(65_536));
        let mine = bearer(&tokens.good);
        let both = format!("Bearer {}, Bearer {}", tokens.good, tokens.good);
        let cases: [Case<'_>; 14] = [
            ("no token", "/", &[], 401),
            ("another scheme", "/", &[("Authorization", "Basic YTpi")], 401),
            ("garbage", "/", &[("Authorization", "Bearer a.b.c")], 401),
            ("not a token", "/", &[("Authorization", "Bearer a b")], 401),
            ("expired", "/", &[("Authorization", &bearer(&tokens.expired))], 401),
            ("another audience", "/", &[("Authorization", &bearer(&tokens.other_audience))], 401),
            ("another realm", "/", &[("Authorization", &bearer(&tokens.other_realm))], 401),
            ("forged", "/", &[("Authorization", &bearer(&tokens.forged))], 401),
            ("two headers", "/", &[("Authorization", &mine), ("Authorization", &mine)], 400),
            ("two tokens", "/", &[("Authorization", &both)], 401),
            ("a token in the query too", "/?access_token=x", &[("Authorization", &mine)], 401),
            ("the same behind ä", "/ä?access_token=x", &[("Authorization", &mine)], 401),
            ("a header of 64 KiB", "/", &[("Authorization", &long)], 400),
            ("the inner path", "/_chancery/any", &[("Authorization", &mine)], 404),
        ];
        for (name, path, headers, status) in cases {
            let answer = self.ask(path, headers)?;
            ensure!(answer.status == status, "{name}: {answer:?}");
            if status == 401 {
                let challenge = answer.header("www-authenticate").unwrap_or_default();
                ensure!(challenge.starts_with("Bearer "), "{name}: {answer:?}");
                ensure!(!answer.body.contains("audience"), "{name} tells too much: {answer:?}");
            }
            println!("denied: {name}: {status}");
        }
        let arrived = self.application.requests() - before;
        ensure!(arrived == 0, "{arrived} denied requests arrived at the application");
        Ok(())
    }

    fn scopes(&self, tokens: &Tokens) -> Result<()> {
        let (without, with) = (bearer(&tokens.good), bearer(&tokens.scoped));
        let before = self.application.requests();
        let own = [("Authorization", without.as_str()), ("X-Chancery-Require-Scope", "read")];
        for headers in [&own[..1], &own] {
            let answer = self.ask("/admin/", headers)?;
            let challenge = answer.header("www-authenticate");
            let wanted = r#"Bearer error="insufficient_scope", scope="write""#;
            ensure!(answer.status == 403 && challenge == Some(wanted), "{answer:?}");
        }
        ensure!(self.application.requests() == before, "a request without the scope arrived");
        let seen = self.let_in("/admin/", &[("Authorization", &with)])?.body;
        ensure!(seen.contains("\nx-chancery-scope: read write\n"), "{seen}");
        println!("scopes: 403 without the one that the location needs");
        Ok(())
    }

    /// What a client without the scope value can have the application read.
    fn paths(&self, tokens: &Tokens) -> Result<()> {
        let token = bearer(&tokens.read);
        let headers = [
            ("Authorization", token.as_str()),
            ("X-Original-URL", "/admin/users"),
            ("X-Rewrite-URL", "/admin/users"),
        ];
        let (mut let_in, mut refused) = (0, 0);
        let absolute = paths::ATTEMPTS.map(|path| format!("http://api.example{path}"));
        for path in paths::ATTEMPTS.into_iter().chain(absolute.iter().map(String::as_str)) {
            let before = self.application.requests();
            let answer = self.ask(path, &headers)?;
            if self.application.requests() == before {
                ensure!([301, 400, 403, 404].contains(&answer.status), "{path}: {answer:?}");
                refused += 1;
                continue;
            }
            let_in += 1;
            ensure!(!answer.body.contains("/admin/users\n"), "a header chose: {answer:?}");
            let line = answer.body.lines().next().unwrap_or_default();
            let read = line.split(' ').nth(1).context("a request line has a path")?;
            let guarded = paths::may_be_guarded(read);
            ensure!(!guarded, "`{path}` without the scope arrived as `{read}`");
        }
        ensure!(let_in > 0, "no attempt arrived, so that nothing was tried");
        // With the scope, paths arrive as nginx read them.
        let write = bearer(&tokens.scoped);
        for (path, read) in [
            ("/admin/users/..%2Froles%20a?x=%2f", "/admin/roles%20a?x=%2f"),
            ("//orders/%3fa/%c3%a4", "/orders/%3Fa/%C3%A4"),
        ] {
            let seen = self.let_in(path, &[("Authorization", &write)])?.body;
            let wanted = format!("GET {read} HTTP/1.0");
            ensure!(seen.lines().next() == Some(&wanted), "`{path}` arrived otherwise:\n{seen}");
        }
        println!("paths: {refused} attempts refused, {let_in} let in as what nginx had judged");
        Ok(())
    }

    fn envoy(&self, tokens: &Tokens) -> Result<()> {
        let good = bearer(&tokens.good);
        let ask = |method: &str, path: &str, headers: &[(&str, &str)]| {
            let length = [("content-length", "0")];
            let headers: Vec<_> = headers.iter().chain(&length).copied().collect();
            exchange(self.ports.authz, &request(method, path, &headers))
        };
        for (method, path) in
            [("GET", "/orders/1?x=y"), ("POST", "/"), ("DELETE", "//a/../b"), ("OPTIONS", "*")]
        {
            let path = format!("/authz/envoy{path}");
            let answer = ask(method, &path, &[("authorization", &good)])?;
            ensure!(answer.status == 200 && answer.body.is_empty(), "{method} {path}: {answer:?}");
            ensure!(answer.header("x-chancery-subject") == Some("user:17"), "{answer:?}");
            let removed = answer.header("x-envoy-auth-headers-to-remove").unwrap_or_default();
            ensure!(removed.contains("x-chancery-scope"), "{answer:?}");
        }
        let wanted = [("authorization", good.as_str()), ("x-chancery-require-scope", "write")];
        let path = "/authz/envoy/?access_token=x";
        for (status, path, headers) in [
            (401, "/authz/envoy/", &[][..]),
            (401, "/authz/envoy/", &[("authorization", "Bearer a.b.c")]),
            (400, "/authz/envoy/", &[("authorization", "Bearer a,Bearer b")]),
            (400, path, &wanted[..1]),
            (403, "/authz/envoy/", &wanted),
            // Where the prefix is forgotten, nothing is let in, whatever the path is.
            (404, "/healthz", &wanted[..1]),
            (404, "/orders/1", &wanted[..1]),
        ] {
            let answer = ask("GET", path, headers)?;
            ensure!(answer.status == status, "envoy {path} {headers:?}: {answer:?}");
        }
        println!("envoy: its questions are answered, by requests in the form of its documentation");
        Ok(())
    }

    fn counted(&self) -> Result<()> {
        let text = exchange(self.ports.admin, &request("GET", "/metrics", &[]))?.body;
        for outcome in ["allowed", "expired", "wrong_audience", "bad_signature", "no_credentials"] {
            let line = text.lines().find(|line| {
                line.starts_with("chancery_authz_decisions_total{")
                    && line.contains(&format!("outcome=\"{outcome}\""))
                    && line.contains("proxy=\"nginx\"")
            });
            let count = line.and_then(|line| line.rsplit(' ').next()?.parse::<u64>().ok());
            ensure!(count.is_some_and(|n| n > 0), "`{outcome}` was not counted:\n{text}");
        }
        Ok(())
    }

    /// Whole requests a second, on connections that are kept; the figure of a debug build shows that
    /// it works under load, not how fast it is.
    fn load(&self, tokens: &Tokens) -> Result<()> {
        let headers = [("Authorization", bearer(&tokens.good))];
        let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        for (name, address, path) in [
            ("through nginx", self.ports.nginx, "/"),
            ("authz alone", self.ports.authz, "/authz/nginx"),
        ] {
            let asked = request("GET", path, &headers);
            let count = wire::load(address, &asked, LOAD_CONNECTIONS, LOAD_FOR)?;
            let rate = count / LOAD_FOR.as_secs();
            println!("load: {name}: {rate} requests a second, all let in");
        }
        Ok(())
    }

    fn unavailable(&self, tokens: &Tokens, why: &str) -> Result<()> {
        let before = self.application.requests();
        let answer = self.ask("/", &[("Authorization", &bearer(&tokens.good))])?;
        let again = answer.header("retry-after");
        ensure!(answer.status == 503 && again == Some("5"), "{why}: {answer:?}");
        ensure!(self.application.requests() == before, "{why}: the request arrived");
        println!("unavailable: {why}: 503 with Retry-After");
        Ok(())
    }

    fn not_ready(&self) -> Result<()> {
        let answer = exchange(self.ports.admin, &request("GET", "/readyz", &[]))?;
        ensure!(answer.status == 503, "ready without a key set: {answer:?}");
        Ok(())
    }
}
