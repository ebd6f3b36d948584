//! `chancery keys`, and the other commands that are one word to the control socket.

use std::process::ExitCode;

use clap::Subcommand;
use serde_json::Value;

use super::{DataArgs, say};
use crate::control::{self, Command, ControlError};
use crate::folder::Paths;
use crate::link::Connection;

#[derive(Debug, Subcommand)]
pub enum KeysCommand {
    /// Print every key with its state and window
    List(DataArgs),
    /// Start a new key in a realm; the answer says when it will sign
    Rotate {
        /// The realm
        realm: String,
        #[command(flatten)]
        data: DataArgs,
    },
    /// Declare a key compromised: it and the realm's other live keys are gone at once
    Compromise {
        /// RFC 7638 thumbprint as `keys list` prints it, or the `kid` of an imported key
        // One in 64 begins with a hyphen.
        #[arg(allow_hyphen_values = true)]
        kid: String,
        /// What happened, for the log
        #[arg(long)]
        reason: String,
        /// Let the realm's retired keys fall too: their tokens are refused from now on
        #[arg(long)]
        include_retired: bool,
        #[command(flatten)]
        data: DataArgs,
    },
}

/// Runs a command on keys.
pub fn run(command: &KeysCommand) -> anyhow::Result<ExitCode> {
    match command {
        KeysCommand::List(args) => list(args),
        KeysCommand::Rotate { realm, data } => {
            simple(data, &Command::Rotate { realm: realm.clone() })
        }
        KeysCommand::Compromise { kid, reason, include_retired, data } => simple(
            data,
            &Command::Compromise {
                kid: kid.clone(),
                reason: reason.clone(),
                include_retired: *include_retired,
            },
        ),
    }
}

/// Sends one command and prints the answer.
pub fn simple(data: &DataArgs, command: &Command) -> anyhow::Result<ExitCode> {
    let answer = data.send(command)?;
    if data.json {
        say(&answer.to_string())?;
    } else {
        say(&serde_json::to_string_pretty(&answer)?)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Ends the signer: through the service, or, when none runs, directly over the signer's socket.
pub fn end_signer(data: &DataArgs) -> anyhow::Result<ExitCode> {
    let paths = Paths::new(&data.data);
    match control::send(&paths.control_socket(), &Command::EndSigner) {
        Err(ControlError::Unreachable { .. }) => {}
        other => {
            say(&other?.to_string())?;
            return Ok(ExitCode::SUCCESS);
        }
    }
    let socket = paths.signer_socket();
    let (mut connection, _) = Connection::open(&socket, None).map_err(|e| {
        anyhow::anyhow!("neither a service nor a signer runs on `{}`: {e}", data.data.display())
    })?;
    connection.ask(&chancery_signer_api::Request::End)?;
    say(&serde_json::json!({"ended": true}).to_string())?;
    Ok(ExitCode::SUCCESS)
}

fn list(data: &DataArgs) -> anyhow::Result<ExitCode> {
    let answer = data.send(&Command::Keys)?;
    if data.json {
        say(&answer.to_string())?;
        return Ok(ExitCode::SUCCESS);
    }
    let text = |key: &Value, name: &str| match key.get(name) {
        Some(Value::String(s)) => s.clone(),
        Some(other) => other.to_string(),
        None => String::new(),
    };
    say(&format!(
        "{:<16} {:<10} {:<8} {:<11} {:<11} {:<11} kid",
        "realm", "algorithm", "state", "nbf", "signs_until", "exp"
    ))?;
    let of = |name: &str| answer.get(name).and_then(Value::as_array).into_iter().flatten();
    for key in of("keys").chain(of("imported")) {
        say(&format!(
            "{:<16} {:<10} {:<8} {:<11} {:<11} {:<11} {}",
            text(key, "realm"),
            text(key, "algorithm"),
            text(key, "state"),
            text(key, "nbf"),
            text(key, "signs_until"),
            text(key, "exp"),
            text(key, "kid"),
        ))?;
    }
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(subcommand)]
        command: super::KeysCommand,
    }

    #[test]
    fn a_thumbprint_may_begin_with_a_hyphen() {
        let kid = "-UrsLXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs";
        for line in [
            ["keys", "compromise", kid, "--reason", "a drill", "--json"],
            ["keys", "compromise", "--reason", "a drill", "--json", kid],
        ] {
            let parsed = Line::try_parse_from(line).unwrap().command;
            let super::KeysCommand::Compromise { kid: found, reason, data, .. } = parsed else {
                panic!("{parsed:?}")
            };
            assert_eq!((found.as_str(), reason.as_str(), data.json), (kid, "a drill", true));
        }
    }
}
