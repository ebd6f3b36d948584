use proptest::prelude::*;

use super::*;

/// A policy with every table; tests replace a line or add one.
const WHOLE: &str = r#"version = 1
kinds = ["snp", "tdx", "azure-snp", "azure-tdx", "tpm", "nitro"]

[freshness]
report_data = "required"
revocation = "if-present"
max_age_s = 60

[snp]
signing_keys = ["vcek", "vlek"]
vmpl = [0, 1]
allow_debug = false
allow_migration = false
allow_smt = true
allow_masked_chip_id = false
require_single_socket = false
require_ciphertext_hiding = false

[snp.minimum_tcb]
milan = { bootloader = 4, tee = 0, snp = 24, microcode = 219 }
turin = { bootloader = 1, tee = 1, snp = 4, microcode = 81, fmc = 1 }

[tdx]
tcb_statuses = ["UpToDate", "SWHardeningNeeded"]
allowed_advisories = ["INTEL-SA-00615"]
minimum_tcb_evaluation_number = 17
allow_debug = false
allow_migration = false
require_sept_ve_disable = true

[tpm]
selection = [0, 4, 7]
attestation_keys = ["0000000000000000000000000000000000000000000000000000000000000000"]

[azure]
report_data = "user-data"
require_secure_boot = true

[nitro]
allow_debug = false

[[reference]]
release = "r1"
kind = "snp"
registers = { measurement = "S48", host_data = "S32", image_id = "S16" }

[[reference]]
release = "r1"
kind = "tdx"
registers = { mrtd = "S48", rtmr3 = "S48" }

[[reference]]
release = "r1"
kind = "azure-snp"
registers = { measurement = "S48", pcr4 = "S32" }

[[reference]]
release = "r1"
kind = "azure-tdx"
registers = { pcr4 = "S32" }

[[reference]]
release = "r1"
kind = "tpm"
registers = { pcr23 = "S32" }

[[reference]]
release = "r1"
kind = "nitro"
registers = { pcr0 = "S48", pcr31 = "S48" }
"#;

fn whole() -> String {
    ["S48", "S32", "S16"].iter().fold(WHOLE.to_owned(), |text, mark| {
        let bytes: usize = mark[1..].parse().unwrap();
        text.replace(mark, &"5a".repeat(bytes))
    })
}

/// The error for the policy with one line replaced, which must name that line.
fn error(old: &str, new: &str) -> String {
    let text = whole();
    assert!(text.contains(old), "{old}");
    let line = text.lines().position(|line| line.contains(old)).unwrap() + 1;
    match Policy::parse(&text.replacen(old, new, 1)) {
        Err(Error::Policy { line: found, why }) => {
            assert_eq!(found, line, "{why}");
            why
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_policy_with_everything_is_read() {
    let policy = Policy::parse(&whole()).unwrap();
    assert!(policy.accepts(Kind::Nitro) && !policy.accepts(Kind::Software));
    assert_eq!(policy.freshness.max_age_s, 60);
    let registers = BTreeMap::from([("pcr23".to_owned(), vec![0x5a; 32])]);
    assert_eq!(policy.release_of(Kind::Tpm, &registers), Ok("r1"));
    let other = BTreeMap::from([("pcr23".to_owned(), vec![0x5b; 32])]);
    assert!(policy.release_of(Kind::Tpm, &other).unwrap_err().starts_with("`pcr23` is `5b5b"));
    let none = policy.release_of(Kind::Tpm, &BTreeMap::new()).unwrap_err();
    assert!(none.starts_with("`pcr23` is `not in the evidence`"), "{none}");
}

#[test]
fn errors_name_the_line_and_what_to_write() {
    let cases = [
        ("version = 1", "version = 2", "`version` must be 1"),
        ("[\"snp\", \"tdx\", ", "[\"sgx\", \"tdx\", ", "unknown variant `sgx`"),
        ("kinds = [\"snp\"", "kinds = [\"software\", \"snp\"", "`software` proves nothing"),
        ("vmpl = [0, 1]", "vmpls = [0, 1]", "unknown field `vmpls`"),
        ("signing_keys = [\"vcek\"", "signing_keys = [\"vcekk\"", "unknown variant `vcekk`"),
        ("milan = {", "rome = {", "unknown variant `rome`"),
        ("microcode = 219", "microcode = 256", "invalid value: integer `256`"),
        ("\"SWHardeningNeeded\"", "\"SwHardeningNeeded\"", "unknown variant `SwHardeningNeeded`"),
        ("selection = [0, 4, 7]", "selection = [0, 24]", "`selection` needs PCR numbers"),
        ("selection = [0, 4, 7]", "selection = []", "`selection` needs PCR numbers"),
        ("max_age_s = 60", "max_age_s = -1", "invalid value"),
        ("report_data = \"user-data\"", "report_data = \"x\"", "unknown variant `x`"),
    ];
    for (old, new, expected) in cases {
        let why = error(old, new);
        assert!(why.contains(expected), "{new}: {why}");
    }
}

#[test]
fn references_are_checked_against_their_kind() {
    let parse = |text: String| Policy::parse(&text).unwrap_err().to_string();
    let cases = [
        (whole().replace("mrtd", "mrtb"), "`tdx` evidence has no register `mrtb`"),
        (whole().replace("pcr23", "pcr24"), "`tpm` evidence has no register `pcr24`"),
        (whole().replace("pcr23", "pcr023"), "`tpm` evidence has no register `pcr023`"),
        (
            whole().replace("pcr31 = \"5a", "pcr31 = \""),
            "register `pcr31` has 47 bytes, expected 48",
        ),
        (whole().replace("pcr31 = \"5a", "pcr31 = \"a"), "even number of hex digits"),
        (whole().replace("{ pcr0 = ", "{ pcr1 = "), "`registers` of `nitro` need `pcr0`"),
        (whole().replace("release = \"r1\"", "release = \"\""), "`release` is empty"),
    ];
    for (text, expected) in cases {
        let error = parse(text);
        assert!(error.starts_with("line ") && error.contains(expected), "{expected}: {error}");
    }
}

#[test]
fn what_a_kind_needs_must_be_said() {
    let policy = |rest: &str| format!("version = 1\nkinds = [\"KIND\"]\n{rest}");
    let reference = |kind: &str, register: &str| {
        let value = "00".repeat(if kind == "tpm" || register == "pcr4" { 32 } else { 48 });
        format!(
            "[[reference]]\nrelease = \"r\"\nkind = \"{kind}\"\nregisters = {{ {register} = \"{value}\" }}\n"
        )
    };
    let cases = [
        ("nitro", String::new(), "no `[[reference]]`"),
        ("snp", reference("snp", "measurement"), "no `[snp.minimum_tcb.PRODUCT]`"),
        ("azure-tdx", reference("azure-tdx", "pcr4"), "no `selection`"),
        (
            "tpm",
            format!("[tpm]\nselection = [4]\n{}", reference("tpm", "pcr4")),
            "no `attestation_keys`",
        ),
        ("nitro", reference("tdx", "mrtd"), "no `[[reference]]`"),
    ];
    for (kind, rest, expected) in cases {
        let error = Policy::parse(&policy(&rest).replace("KIND", kind)).unwrap_err().to_string();
        assert!(error.starts_with("line 2: ") && error.contains(expected), "{kind}: {error}");
    }
    let stray = policy(&(reference("nitro", "pcr0") + &reference("tdx", "mrtd")));
    let error = Policy::parse(&stray.replace("KIND", "nitro")).unwrap_err().to_string();
    assert!(error.starts_with("line 7: `kinds` does not have `tdx`"), "{error}");
    let empty = "version = 1\nkinds = []\n";
    assert!(Policy::parse(empty).unwrap_err().to_string().contains("`kinds` is empty"));
    let large = " ".repeat(MAX_POLICY_BYTES + 1);
    assert!(matches!(Policy::parse(&large), Err(Error::TooLarge { .. })));
}

proptest! {
    /// Any text is read or refused with a line of it.
    #[test]
    fn any_change_is_read_or_refused(at in 0usize..2000, with in "\\PC{0,4}") {
        let mut text: Vec<char> = whole().chars().collect();
        let at = at.min(text.len());
        let end = (at + 2).min(text.len());
        text.splice(at..end, with.chars());
        let text: String = text.into_iter().collect();
        if let Err(Error::Policy { line, why }) = Policy::parse(&text) {
            prop_assert!(line >= 1 && line <= text.lines().count() + 1, "{line}: {why}");
            prop_assert!(!why.is_empty());
        }
    }
}
