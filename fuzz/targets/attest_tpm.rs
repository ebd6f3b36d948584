//! TPM quotes: the first three octets cut the input into message, signature and key (in steps of four
//! octets). The policy names a key that nobody has.

#![no_main]

use std::collections::BTreeMap;
use std::sync::LazyLock;

use chancery_attest::{Base64, Evidence, Hex, Policy, TpmQuote, appraise};
use libfuzzer_sys::fuzz_target;

fn policy(kind: &str, rest: &str) -> Policy {
    let zeros = "00".repeat(32);
    let text = format!(
        "version = 1\nkinds = [\"{kind}\"]\n[freshness]\nreport_data = \"if-present\"\n\
         revocation = \"if-present\"\n[tpm]\nselection = [0]\n\
         attestation_keys = [\"{zeros}\"]\n{rest}"
    );
    Policy::parse(&text).expect("a policy")
}

static POLICY: LazyLock<Policy> = LazyLock::new(|| {
    let zeros = "00".repeat(32);
    let reference = "[[reference]]\nrelease = \"r\"\nkind = \"tpm\"\n";
    policy("tpm", &format!("{reference}registers = {{ pcr0 = \"{zeros}\" }}\n"))
});

fuzz_target!(|data: &[u8]| {
    let Some(([message, signature, _], bytes)) = data.split_first_chunk::<3>() else { return };
    let cut = |length: &u8, bytes: &[u8]| usize::from(*length).saturating_mul(4).min(bytes.len());
    let (message, rest) = bytes.split_at(cut(message, bytes));
    let (signature, key) = rest.split_at(cut(signature, rest));
    let evidence = Evidence::Tpm {
        tpm_quote: TpmQuote {
            message: Base64(message.to_vec()),
            signature: Base64(signature.to_vec()),
            pcrs: BTreeMap::from([(0, Hex(vec![0; 32]))]),
        },
        attestation_key: Base64(key.to_vec()),
    };
    let _ = evidence.show();
    if let Ok(result) = appraise(&evidence, &POLICY, 0, None) {
        assert!(!result.accepted, "a key that the policy does not name");
    }
});
