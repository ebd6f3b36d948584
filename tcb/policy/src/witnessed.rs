//! `release = "witnessed"` (INVARIANT I2): which directory roots free signatures.
//!
//! The document holds a C2SP tlog-policy: the directory's key as `log`, the witnesses, and a quorum.
//! It is part of the policy, so the policy digest in genesis, evidence and `/signers` covers it.

use chancery_tlog::policy;

use crate::document::Error;

/// The longest tlog-policy of a policy document: the directory's keys and sixteen witnesses, each
/// with a post-quantum key.
pub const MAX_WITNESSED_BYTES: usize = 64 * 1024;

/// Reads the tlog-policy of a policy document.
///
/// # Errors
/// [`Error::Value`] when it is none, names no log, or asks for no witness.
pub fn parse(text: &str) -> Result<policy::Policy, Error> {
    let bad = |what: String| Error::Value { at: "policy: `witnessed`".into(), what };
    if text.len() > MAX_WITNESSED_BYTES {
        return Err(bad(format!("it is longer than {MAX_WITNESSED_BYTES} bytes")));
    }
    let parsed = policy::Policy::parse(text).map_err(|e| bad(e.to_string()))?;
    if parsed.logs().is_empty() {
        return Err(bad("it names no `log`: the directory's key".into()));
    }
    if parsed.quorum().is_none() {
        return Err(bad("its quorum is `none`: name a witness or a group".into()));
    }
    Ok(parsed)
}

#[cfg(test)]
mod tests {
    use chancery_tlog::note::VerifierKey;

    use super::*;
    use crate::document::PolicyDocument;
    use crate::document::tests::sample;

    #[test]
    fn a_policy_needs_a_log_and_a_quorum() {
        let log = VerifierKey::new_ed25519("issuer.example/directory", &[1; 32]).unwrap();
        let witness = VerifierKey::new_ed25519_cosigner("w.example", &[2; 32]).unwrap();
        let good = format!("log {log}\nwitness w {witness}\nquorum w\n");
        assert_eq!(parse(&good).unwrap().witnesses().len(), 1);
        let long = format!("{good}#{}\n", " ".repeat(MAX_WITNESSED_BYTES));
        for (bad, why) in [
            (format!("log {log}\nwitness w {witness}\nquorum none\n"), "quorum is `none`"),
            (format!("witness w {witness}\nquorum w\n"), "names no `log`"),
            (format!("log {log}\nquorum w\n"), "no earlier line defines"),
            (long, "longer than"),
            (String::new(), "no quorum"),
        ] {
            let mut document = sample();
            document.witnessed = Some(bad);
            let error = document.check().unwrap_err().to_string();
            assert!(error.contains("witnessed") && error.contains(why), "{error}");
        }
        let mut document = sample();
        let before = String::from_utf8(document.to_json().unwrap()).unwrap();
        assert!(!before.contains("witnessed"), "older documents keep their digest");
        document.witnessed = Some(good.clone());
        let read = PolicyDocument::parse(&document.to_json().unwrap()).unwrap();
        assert_eq!(read.witnessed, Some(good));
    }
}
