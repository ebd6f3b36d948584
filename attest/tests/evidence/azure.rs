//! Azure's confidential VMs: reports of the paravisor and quotes of the vTPM, over SNP and over TDX.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use chancery_attest::{Base64, Collateral, Evidence, Hex, TpmQuote, unhex};
use serde_json::Value;

use crate::common::{assert_accepted, certificates, failed, flipped, judged, vector};

/// 2026-06-01.
const AT: u64 = 1_780_272_000;
const ALL: &str = "[0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23]";

/// Bytes in the several spellings of the recorded files: numbers, hexadecimal, base64.
fn bytes(value: &Value) -> Vec<u8> {
    if let Some(numbers) = value.as_array() {
        return numbers.iter().map(|n| u8::try_from(n.as_u64().unwrap()).unwrap()).collect();
    }
    let text = value.as_str().unwrap();
    let hex = unhex(text);
    hex.or_else(|| URL_SAFE.decode(text).ok())
        .or_else(|| STANDARD.decode(text).ok())
        .unwrap_or_else(|| text.as_bytes().to_vec())
}

fn quote(value: &Value) -> TpmQuote {
    let pcrs = value["pcrs"].as_array().unwrap().iter().zip(0u8..);
    TpmQuote {
        message: Base64(bytes(&value["message"])),
        signature: Base64(bytes(&value["signature"])),
        pcrs: pcrs.map(|(pcr, number)| (number, Hex(bytes(pcr)))).collect(),
    }
}

struct Recorded {
    hcl: Vec<u8>,
    quote: TpmQuote,
    vcek: Vec<Base64>,
    td_quote: Vec<u8>,
}

impl Recorded {
    fn read(file: &str) -> Option<Self> {
        let document: Value = serde_json::from_slice(&vector(file)?).unwrap();
        let of = |names: [&str; 2]| names.iter().find_map(|name| document.get(name)).cloned();
        let vcek = document.get("vcek").map(bytes).unwrap_or_default();
        Some(Self {
            hcl: bytes(&of(["hcl_report", "report"]).unwrap()),
            quote: quote(&of(["tpm_quote", "quote"]).unwrap()),
            vcek: if vcek.is_empty() { vec![] } else { certificates(&vcek) },
            td_quote: document.get("td_quote").map(bytes).unwrap_or_default(),
        })
    }

    fn snp(&self) -> Evidence {
        Evidence::AzureSnp {
            hcl_report: Base64(self.hcl.clone()),
            tpm_quote: self.quote.clone(),
            certificates: self.vcek.clone(),
            crls: vec![],
        }
    }

    fn pcr(&self, number: u8) -> String {
        self.quote.pcrs[&number].0.iter().map(|b| format!("{b:02x}")).collect()
    }

    fn policy(&self, selection: &str, extra: &str) -> String {
        format!(
            r#"version = 1
kinds = ["azure-snp"]
[freshness]
revocation = "if-present"
[tpm]
selection = {selection}
[snp.minimum_tcb]
milan = {{ bootloader = 3, tee = 0, snp = 8, microcode = 115 }}
genoa = {{ bootloader = 7, tee = 0, snp = 14, microcode = 0 }}
[[reference]]
release = "the recorded one"
kind = "azure-snp"
registers = {{ pcr4 = "{}", pcr7 = "{}" }}
{extra}
"#,
            self.pcr(4),
            self.pcr(7)
        )
    }

    /// The nonce of the quote.
    fn nonce(&self) -> Vec<u8> {
        let shown = self.snp().show().unwrap();
        unhex(&shown.into_iter().find(|(n, _)| n == "tpm_extra_data").unwrap().1).unwrap()
    }
}

#[test]
fn recorded_vms_are_accepted() {
    for file in ["v0", "v1", "v2", "genoa"] {
        let path = format!("azure/trustee/az-snp-vtpm-evidence-{file}.json");
        let Some(vm) = Recorded::read(&path) else { return };
        let result = judged(&vm.snp(), &vm.policy(ALL, ""), AT, Some(&vm.nonce()));
        assert_accepted(&result);
        let names: Vec<&str> = result.checks.iter().map(|check| check.name).collect();
        for name in [
            "azure_report_type",
            "snp_report_signature",
            "snp_chain",
            "azure_runtime_data",
            "azure_secure_boot",
            "tpm_quote_signature",
            "tpm_pcr_selection",
            "tpm_pcr_digest",
        ] {
            assert!(names.contains(&name), "{file}: {name}");
        }
    }
}

#[test]
fn the_runtime_data_is_bound_bit_by_bit() {
    let Some(mut vm) = Recorded::read("azure/trustee/az-snp-vtpm-evidence-v1.json") else { return };
    let (good, nonce) = (vm.hcl.clone(), vm.nonce());
    let policy = vm.policy(ALL, "");
    // In the name of the VM, in the key's modulus, in the report's hash, in its zero half.
    let at = |needle: &[u8]| good.windows(needle.len()).position(|w| w == needle).unwrap();
    let cases = [
        (at(b"vmUniqueId") + 14, "azure_runtime_data"),
        (at(b"\"n\":\"") + 20, "tpm_quote_signature"),
        (32 + 0x50, "azure_runtime_data"),
        (32 + 0x50 + 40, "azure_runtime_data"),
        (32 + 0x90, "snp_report_signature"),
    ];
    for (byte, reason) in cases {
        vm.hcl = flipped(&good, byte, 0);
        let failures = failed(&vm.snp(), &policy, AT, Some(&nonce));
        assert!(failures.iter().any(|name| name == reason), "{byte}: {reason}: {failures:?}");
    }
    let secure = at(b"\"secure-boot\":true");
    vm.hcl = good.clone();
    vm.hcl.splice(secure..secure + 18, b"\"secure-boot\":null".iter().copied());
    assert_eq!(failed(&vm.snp(), &policy, AT, Some(&nonce)), ["malformed"]);
    vm.hcl = good;
    vm.hcl[at_type()] = 4;
    let failures = failed(&vm.snp(), &policy, AT, Some(&nonce));
    assert_eq!(failures, ["azure_report_type"]);
}

/// Offset of the report type in the HCL report.
fn at_type() -> usize {
    32 + 1184 + 8
}

#[test]
fn the_quote_counts_whole() {
    let Some(mut vm) = Recorded::read("azure/trustee/az-snp-vtpm-evidence-v2.json") else { return };
    let (good, nonce) = (vm.quote.clone(), vm.nonce());
    let policy = vm.policy(ALL, "");
    let fewer = vm.policy("[4, 7]", "");
    assert_eq!(failed(&vm.snp(), &fewer, AT, Some(&nonce)), ["tpm_pcr_selection"]);

    for byte in 6..good.message.0.len() {
        vm.quote.message = Base64(flipped(&good.message.0, byte, 0));
        let failures = failed(&vm.snp(), &policy, AT, Some(&nonce));
        let right = |name: &String| name == "tpm_quote_signature" || name == "malformed";
        assert!(failures.iter().any(right), "{byte}: {failures:?}");
    }
    vm.quote = good.clone();
    vm.quote.signature.0[9] ^= 1;
    assert_eq!(failed(&vm.snp(), &policy, AT, Some(&nonce)), ["tpm_quote_signature"]);
    vm.quote = good.clone();
    vm.quote.pcrs.get_mut(&11).unwrap().0[0] ^= 1;
    let failures = failed(&vm.snp(), &policy, AT, Some(&nonce));
    assert_eq!(failures, ["tpm_pcr_digest", "measurements"], "no PCR counts then");
    vm.quote = good;
    vm.quote.pcrs.remove(&23);
    let failures = failed(&vm.snp(), &policy, AT, Some(&nonce));
    assert_eq!(failures, ["tpm_pcr_digest", "measurements"]);
}

/// A quote that is genuine but selects fewer PCRs: that of the same VM, over 0 to 7 and 14.
#[test]
fn a_genuine_quote_of_another_selection_is_refused() {
    let Some(mut vm) = Recorded::read("azure/trustee/az-snp-vtpm-evidence-v1.json") else { return };
    let policy = vm.policy(ALL, "");
    vm.quote.message = Base64(vector("azure/trustee/az-snp-vtpm-tpm-quote.msg").unwrap());
    vm.quote.signature = Base64(vector("azure/trustee/az-snp-vtpm-tpm-quote.sig").unwrap());
    let failures = failed(&vm.snp(), &policy, AT, Some(b"challenge"));
    assert!(failures.iter().any(|name| name == "tpm_pcr_selection"), "{failures:?}");
}

#[test]
fn report_data_may_stand_in_the_runtime_data() {
    let Some(vm) = Recorded::read("azure/trustee/az-snp-vtpm-evidence-v2.json") else { return };
    let policy = vm.policy(ALL, "[azure]\nreport_data = \"user-data\"");
    let mut padded = vm.nonce();
    assert_eq!(failed(&vm.snp(), &policy, AT, Some(&padded)), ["report_data"], "compared whole");
    padded.resize(64, 0);
    assert!(failed(&vm.snp(), &policy, AT, Some(&padded)).is_empty());
    let nonce = vm.policy(ALL, "");
    assert_eq!(failed(&vm.snp(), &nonce, AT, Some(&padded)), ["report_data"]);
}

/// No collateral of that platform and time was recorded: with another platform's, all but Intel's
/// statements holds.
#[test]
fn over_tdx_everything_but_the_statements_of_another_platform_holds() {
    let Some(vm) = Recorded::read("azure/trustee/az-tdx-vtpm-evidence-v1.json") else { return };
    let collateral = vector("tdx/dcap-qvl/tdx_quote_collateral.json").unwrap();
    let collateral: Collateral = serde_json::from_slice(&collateral).unwrap();
    // The paravisor's own guest takes page faults itself: the bit is off on Azure.
    let policy = vm.policy(ALL, "[tdx]\nrequire_sept_ve_disable = false");
    let policy = policy.replace("azure-snp", "azure-tdx");
    let evidence = |td_quote: &[u8]| Evidence::AzureTdx {
        hcl_report: Base64(vm.hcl.clone()),
        tpm_quote: vm.quote.clone(),
        td_quote: Base64(td_quote.to_vec()),
        collateral: Some(collateral.clone()),
    };
    let at = 1_750_400_000;
    let result = judged(&evidence(&vm.td_quote), &policy, at, Some(b"challenge"));
    let failures: BTreeMap<&str, &str> =
        result.failures().map(|check| (check.name, check.value.as_str())).collect();
    let only = ["tdx_platform", "tdx_tcb_status", "tdx_module", "tdx_advisories"];
    assert!(failures.keys().all(|name| only.contains(name)), "{failures:#?}");
    assert!(failures.contains_key("tdx_platform"), "{failures:#?}");

    let other = vector("tdx/dcap-qvl/tdx_quote").unwrap();
    let failures = failed(&evidence(&other), &policy, at, Some(b"challenge"));
    assert_eq!(failures, ["azure_runtime_data"], "a quote of another guest");
}
