//! `chancery attest`: looks at evidence, and judges it by the caller's own reference values, offline.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use chancery_attest::{
    AttestationResult, Evidence, MAX_EVIDENCE_BYTES, MAX_POLICY_BYTES, Policy, appraise, unhex,
};
use clap::{Args, Subcommand};
use serde_json::{Map, Value, json};

use super::{bundle, say};

/// `chancery attest`
#[derive(Debug, Subcommand)]
pub enum AttestCommand {
    /// Print what a piece of evidence says; verifies nothing
    Show(ShowArgs),
    /// Judge evidence by a policy: exit 0 accepted, 1 refused, 2 could not judge
    Verify(VerifyArgs),
}

/// Endorsements for evidence in its vendor's own bytes, which come without them.
#[derive(Debug, Args)]
struct EndorsementArgs {
    /// Certificates for an SNP report: the VCEK or VLEK, PEM or DER; may be given again
    #[arg(long, value_name = "FILE")]
    certificate: Vec<PathBuf>,
    /// AMD's list of revoked certificates, DER; may be given again
    #[arg(long, value_name = "FILE")]
    crl: Vec<PathBuf>,
    /// Intel's collateral for a TDX quote, JSON
    #[arg(long, value_name = "FILE")]
    collateral: Option<PathBuf>,
}

/// `chancery attest show`
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  chancery attest show evidence.json")]
pub struct ShowArgs {
    /// The evidence: Chancery's JSON document, or an SNP report, TDX quote or Nitro document
    file: PathBuf,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

/// `chancery attest verify`
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  chancery attest verify --evidence report.bin --certificate vcek.pem \
    \\\n    --policy policy.toml --report-data 5c41...\n  chancery attest verify --bundle \
    bundle.json --policy policy.toml $TOKEN"
)]
pub struct VerifyArgs {
    /// The evidence: Chancery's JSON document, or an SNP report, TDX quote or Nitro document
    #[arg(long, value_name = "FILE", required_unless_present = "bundle")]
    evidence: Option<PathBuf>,
    /// Instead of evidence alone: what `chancery bundle` printed for a token; judged is the whole way
    /// from the token to the hardware's root
    #[arg(long, value_name = "FILE", requires = "token",
          conflicts_with_all = ["evidence", "certificate", "crl", "collateral", "report_data"])]
    bundle: Option<PathBuf>,
    /// What is accepted, with the reference values: TOML
    #[arg(long, value_name = "FILE")]
    policy: PathBuf,
    #[command(flatten)]
    endorsements: EndorsementArgs,
    /// Judge at this Unix time instead of now
    #[arg(long, value_name = "UNIX_SECONDS")]
    at: Option<u64>,
    /// What the evidence must be bound to, compared whole
    #[arg(long, value_name = "HEX")]
    report_data: Option<String>,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
    /// With --bundle: the token, or - for standard input
    #[arg(requires = "bundle")]
    token: Option<String>,
}

/// Runs a subcommand.
pub fn run(command: &AttestCommand) -> anyhow::Result<ExitCode> {
    match command {
        AttestCommand::Show(args) => show(args),
        AttestCommand::Verify(args) => verify(args),
    }
}

fn show(args: &ShowArgs) -> anyhow::Result<ExitCode> {
    let evidence = Evidence::parse(&read(&args.file, MAX_EVIDENCE_BYTES)?)?;
    let fields = evidence.show()?;
    if args.json {
        say(&shown_document(&evidence, fields).to_string())?;
        return Ok(ExitCode::SUCCESS);
    }
    say(&format!("{} evidence; nothing is verified here", evidence.kind()))?;
    for (name, value) in fields {
        say(&format!("{name:<24} {}", printable(&value)))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn shown_document(evidence: &Evidence, fields: Vec<(String, String)>) -> Value {
    let mut members: Map<String, Value> = Map::new();
    for (name, value) in fields {
        // A chain has several certificates: what comes again makes a list.
        match members.get_mut(&name) {
            None => drop(members.insert(name, Value::String(value))),
            Some(Value::Array(values)) => values.push(Value::String(value)),
            Some(first) => *first = json!([first.take(), value]),
        }
    }
    json!({"kind": evidence.kind(), "verified": false, "fields": members})
}

fn verify(args: &VerifyArgs) -> anyhow::Result<ExitCode> {
    let at = args.at.unwrap_or_else(crate::now);
    if let (Some(file), Some(token)) = (&args.bundle, &args.token) {
        return bundle::verify(file, &args.policy, at, token, args.json);
    }
    let Some(file) = &args.evidence else { anyhow::bail!("name `--evidence` or `--bundle`") };
    let policy = read_policy(&args.policy)?;
    let mut evidence = Evidence::parse(&read(file, MAX_EVIDENCE_BYTES)?)?;
    endorse(&mut evidence, &args.endorsements)?;
    let data = args.report_data.as_deref().map(|text| {
        unhex(text).ok_or_else(|| anyhow::anyhow!("`--report-data` takes hexadecimal"))
    });
    let data = data.transpose()?;
    let result = appraise(&evidence, &policy, at, data.as_deref())?;
    report(args.json, &result)?;
    Ok(if result.accepted { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

/// What is accepted, from a file.
pub(super) fn read_policy(file: &Path) -> anyhow::Result<Policy> {
    let text = String::from_utf8(read(file, MAX_POLICY_BYTES)?);
    let policy = text
        .map_err(|_| anyhow::anyhow!("it is not UTF-8"))
        .and_then(|text| Ok(Policy::parse(&text)?));
    policy.map_err(|e| anyhow::anyhow!("policy `{}`: {e}", file.display()))
}

fn endorse(evidence: &mut Evidence, args: &EndorsementArgs) -> anyhow::Result<()> {
    let kind = evidence.kind();
    let none = |what| Err(anyhow::anyhow!("`{kind}` evidence takes no {what}"));
    for file in &args.certificate {
        if !evidence.add_certificates(&read(file, MAX_EVIDENCE_BYTES)?)? {
            return none("certificate");
        }
    }
    for file in &args.crl {
        if !evidence.add_crl(&read(file, MAX_EVIDENCE_BYTES)?) {
            return none("list of revoked certificates");
        }
    }
    if let Some(file) = &args.collateral
        && !evidence.set_collateral(&read(file, MAX_EVIDENCE_BYTES)?)?
    {
        return none("collateral");
    }
    Ok(())
}

fn report(as_json: bool, result: &AttestationResult) -> std::io::Result<()> {
    if as_json {
        return say(&json!(result).to_string());
    }
    for check in &result.checks {
        let passed = if check.passed { "passed" } else { "FAILED" };
        say(&format!("{passed} {:<28} {}", check.name, printable(&check.value)))?;
    }
    let release = result.release.as_deref().unwrap_or("no known release");
    if result.accepted {
        say(&format!("accepted: {} evidence of {}", result.kind, printable(release)))
    } else {
        say(&format!(
            "refused: {} of {} checks failed",
            result.failures().count(),
            result.checks.len()
        ))
    }
}

/// Evidence comes from strangers: what a terminal would act on is not printed.
pub(super) fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

/// A file of at most so many bytes and one: the parser then says that it is too large.
pub(super) fn read(file: &Path, limit: usize) -> anyhow::Result<Vec<u8>> {
    let fault = |e| anyhow::anyhow!("`{}`: {e}", file.display());
    let mut bytes = Vec::new();
    let limit = u64::try_from(limit)?.saturating_add(1);
    std::fs::File::open(file).map_err(fault)?.take(limit).read_to_end(&mut bytes).map_err(fault)?;
    Ok(bytes)
}
