//! `cargo xtask first-run`: the main job on this machine, told step by step with the very commands
//! that a person would type.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result, bail};

use crate::recipes::{Outcome, no_arguments};
use crate::run::output;
use crate::service::{Binaries, free_addresses};

const AUDIENCE: &str = "https://api.example";

/// Builds service and signer, starts them, and follows one token from the request to its proof.
pub fn recipe(root: &Path, arguments: &[String]) -> Result<Outcome> {
    no_arguments(arguments)?;
    println!("1. Build the service and the signer: two programs, because only one is trusted.\n");
    let binaries = Binaries::build(root)?;
    let mut story = Story::begin(binaries)?;
    let told = story.tell();
    story.end();
    told?;
    Ok(Outcome::Passed)
}

struct Story {
    chancery: PathBuf,
    data: PathBuf,
    url: String,
    service: Child,
}

impl Story {
    fn begin(binaries: Binaries) -> Result<Self> {
        let chancery = binaries.chancery;
        let data = binaries.folder.join("first-run");
        if data.exists() {
            std::fs::remove_dir_all(&data)
                .with_context(|| format!("cannot remove {}", data.display()))?;
        }
        let (listen, admin) = free_addresses()?;
        let (listen, admin) = (listen.to_string(), admin.to_string());
        println!("\n2. Start them. The signer is a process of its own, in a sandbox:\n");
        println!("$ chancery serve --data {} --listen {listen} --admin {admin}", data.display());
        let mut service = Command::new(&chancery)
            .args(["serve", "--listen", &listen, "--admin", &admin, "--data"])
            .arg(&data)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .with_context(|| format!("cannot start {}", chancery.display()))?;
        let stdout = service.stdout.take().context("the service has no standard output")?;
        for line in BufReader::new(stdout).lines() {
            let line = line?;
            println!("{line}");
            if line.contains("development mode") {
                return Ok(Self { chancery, data, url: format!("http://{listen}"), service });
            }
        }
        let status = service.wait()?;
        bail!("the service ended with {status}; run the command above to see why")
    }

    fn tell(&self) -> Result<()> {
        let issuer = format!("{}/consumers", self.url);
        println!(
            "\n3. A client asks for a token. The signer checks the client's own signature and the"
        );
        println!(
            "   policy, writes the token into its log, and signs; the service makes the entry"
        );
        println!("   durable, and only then gets the token:\n");
        let token = self.ask(&["token", "--realm", "consumers", "--audience", AUDIENCE])?;
        println!("\n4. A relying party validates it, and demands that it is in the log:\n");
        let judge =
            ["validate", "--issuer", &issuer, "--audience", AUDIENCE, "--log", "require", &token];
        self.ask(&judge)?;
        println!("\n5. Its proof, which any C2SP tlog tool can check:\n");
        self.ask(&["prove", &token])?;
        println!("\n6. And the whole log, every byte of it, agrees with what the signer signed:\n");
        let log = self.log_id()?;
        self.ask(&["log", "check", &format!("{}/log/{log}", self.url)])?;
        println!("\nThat was the main job. Next: README.md, docs/token-life.md, docs/key-life.md.");
        Ok(())
    }

    /// The id of the signer's log.
    fn log_id(&self) -> Result<String> {
        let mut command = Command::new(&self.chancery);
        command.args(["keys", "list", "--json"]).env("CHANCERY_DATA", &self.data);
        let keys: serde_json::Value = serde_json::from_str(&output(&mut command)?)?;
        let id = keys.get("log_id").and_then(serde_json::Value::as_str);
        Ok(id.context("`chancery keys list` names no log")?.to_owned())
    }

    /// Runs one command, shows it as a person would type it, and returns its output.
    fn ask(&self, arguments: &[&str]) -> Result<String> {
        let shown: Vec<String> = arguments.iter().map(|a| shorten(a)).collect();
        println!("$ chancery {}", shown.join(" "));
        let output = Command::new(&self.chancery)
            .args(arguments)
            .env("CHANCERY_DATA", &self.data)
            .stderr(Stdio::inherit())
            .output()?;
        let text = String::from_utf8_lossy(&output.stdout).trim_end().to_owned();
        println!("{text}");
        if !output.status.success() {
            bail!("`chancery {}` ended with {}", shown.join(" "), output.status);
        }
        Ok(text)
    }

    fn end(&mut self) {
        let _ = self.service.kill();
        let _ = self.service.wait();
        // The signer outlives its service by design; this story is over for both.
        let mut end = Command::new(&self.chancery);
        let _ = end.args(["signer", "end"]).env("CHANCERY_DATA", &self.data).output();
    }
}

fn shorten(argument: &str) -> String {
    match argument.char_indices().nth(72) {
        Some((end, _)) => format!("{}...", argument.get(..end).unwrap_or(argument)),
        None => argument.to_owned(),
    }
}
