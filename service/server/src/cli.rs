//! The commands. Each prints for a person, or one JSON document with `--json`; exit code 0 is
//! success, 1 a "no" as an answer, 2 a failure to find out.

mod attest;
mod audit;
mod authz;
mod bench;
mod bundle;
mod client;
mod fetch;
mod keys;
mod logcheck;
mod monitor;
mod prove;
mod relying_party;
mod serve;
mod signals;
mod token;
mod validate;
mod witness;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

/// The data folder where none is named.
const DEFAULT_DATA: &str = "chancery-data";

/// Signs security tokens that cannot be forged in silence.
#[derive(Debug, Parser)]
#[command(name = "chancery", version, about, max_term_width = 100)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the service and, unless one is given, a signer
    Serve(serve::ServeArgs),
    /// Print one token, as the demo client of a development service
    Token(token::TokenArgs),
    /// Print a client assertion, so that plain curl can ask for a token
    Assertion(token::AssertionArgs),
    /// Judge a token: exit 0 valid, 1 rejected, 2 could not judge
    Validate(validate::ValidateArgs),
    /// Answer nginx and Envoy whether a request's token is acceptable
    Authz(authz::AuthzArgs),
    /// Cosign other people's logs, as C2SP tlog-witness describes it
    Witness(witness::WitnessArgs),
    /// Print the token's C2SP tlog-proof
    Prove(prove::ProveArgs),
    /// Print what leads from a token to the evidence of its signer, for `attest verify --bundle`
    Bundle(bundle::BundleArgs),
    /// Look at transparency logs
    #[command(subcommand)]
    Log(LogCommand),
    /// Follow a deployment as a stranger: its logs and key sets; exit 1 on a violation
    Monitor(monitor::MonitorArgs),
    /// Ask the audit who got which token, and check that nothing of it is missing
    #[command(subcommand)]
    Audit(audit::AuditCommand),
    /// Look at evidence of confidential hardware, and judge it
    #[command(subcommand)]
    Attest(attest::AttestCommand),
    /// Look at keys and change their lives
    #[command(subcommand)]
    Keys(keys::KeysCommand),
    /// Look at configuration files
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Have the running service read its configuration file again
    Reload(DataArgs),
    /// Look at the signer, or end it
    #[command(subcommand)]
    Signer(SignerCommand),
    /// Measure what tokens cost on this machine
    #[command(subcommand)]
    Bench(bench::BenchCommand),
}

#[derive(Debug, Subcommand)]
enum LogCommand {
    /// Walk a whole log; exit 0 only if every byte agrees with the signed checkpoint
    Check(logcheck::CheckArgs),
    /// Delete the entries of logs that ended long ago; their hashes stay
    Prune(logcheck::PruneArgs),
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Check a configuration file without starting anything
    Check {
        /// The file
        file: PathBuf,
        /// Print one JSON document
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, Subcommand)]
enum SignerCommand {
    /// End the signer and destroy its keys; a running service starts a new one with a new log
    End(DataArgs),
}

/// Which running service.
#[derive(Clone, Debug, Args)]
pub struct DataArgs {
    /// Data folder of the running service
    #[arg(long, env = "CHANCERY_DATA", default_value = DEFAULT_DATA)]
    data: PathBuf,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

impl DataArgs {
    fn send(&self, command: &crate::control::Command) -> anyhow::Result<serde_json::Value> {
        send(&self.data, command)
    }
}

fn send(
    data: &std::path::Path,
    command: &crate::control::Command,
) -> anyhow::Result<serde_json::Value> {
    let socket = crate::folder::Paths::new(data).control_socket();
    Ok(crate::control::send(&socket, command)?)
}

/// Runs the command line.
#[must_use]
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = match cli.command {
        Command::Serve(args) => serve::run(args),
        Command::Token(args) => token::token(&args),
        Command::Assertion(args) => token::assertion(&args),
        Command::Validate(args) => validate::validate(&args),
        Command::Authz(args) => authz::run(&args),
        Command::Witness(args) => witness::run(&args),
        Command::Prove(args) => prove::prove(&args),
        Command::Bundle(args) => bundle::bundle(&args),
        Command::Log(LogCommand::Check(args)) => logcheck::check(&args),
        Command::Log(LogCommand::Prune(args)) => logcheck::prune(&args),
        Command::Monitor(args) => monitor::run(&args),
        Command::Audit(command) => audit::run(&command),
        Command::Attest(command) => attest::run(&command),
        Command::Keys(command) => keys::run(&command),
        Command::Config(ConfigCommand::Check { file, json }) => check_config(&file, json),
        Command::Reload(args) => keys::simple(&args, &crate::control::Command::Reload),
        Command::Bench(command) => bench::run(&command),
        Command::Signer(SignerCommand::End(args)) => keys::end_signer(&args),
    };
    match result {
        Ok(code) => code,
        Err(e) => {
            complain(&format!("error: {e:#}"));
            ExitCode::from(2)
        }
    }
}

fn check_config(file: &std::path::Path, json: bool) -> anyhow::Result<ExitCode> {
    match crate::config::Config::load(file) {
        Ok(config) => {
            let warnings = config.warnings();
            if json {
                say(&serde_json::json!({"valid": true, "warnings": warnings}).to_string())?;
            } else {
                for warning in &warnings {
                    say(&format!("warning: {warning}"))?;
                }
                say(&format!("{} is valid: {} realms", file.display(), config.realms.len()))?;
            }
            Ok(ExitCode::SUCCESS)
        }
        Err(e @ crate::config::ConfigError::Unreadable { .. }) => Err(e.into()),
        Err(e) => {
            if json {
                say(&serde_json::json!({"valid": false, "error": e.to_string()}).to_string())?;
            } else {
                complain(&e.to_string());
            }
            Ok(ExitCode::from(1))
        }
    }
}

/// Prints a line on standard output; a closed pipe is an error, not a panic.
fn say(text: &str) -> std::io::Result<()> {
    use std::io::Write;
    writeln!(std::io::stdout(), "{text}")
}

/// Prints a line on standard error.
fn complain(text: &str) {
    use std::io::Write;
    // There is nobody left to tell when standard error is closed.
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// A token from an argument, or from standard input with `-`.
fn read_token(argument: &str) -> anyhow::Result<String> {
    use std::io::Read;
    if argument != "-" {
        return Ok(argument.to_owned());
    }
    let limit = chancery_token::jws::MAX_TOKEN_BYTES.saturating_add(2);
    let mut text = String::new();
    let limit = u64::try_from(limit).unwrap_or(u64::MAX);
    std::io::stdin().take(limit).read_to_string(&mut text)?;
    Ok(text.trim_end_matches(['\n', '\r']).to_owned())
}
