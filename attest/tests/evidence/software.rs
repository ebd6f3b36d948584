//! Software evidence is never more than it is.

use chancery_attest::{Backing, Evidence, Hex, Policy};

use crate::common::{assert_accepted, failed, judged};

const DEVELOPMENT: &str = "version = 1\nkinds = [\"software\"]\n";

fn evidence() -> Evidence {
    Evidence::Software { software: "chancery-signer".to_owned(), report_data: Hex(vec![7; 64]) }
}

#[test]
fn it_is_accepted_only_as_software() {
    let result = judged(&evidence(), DEVELOPMENT, 0, Some(&[7; 64]));
    assert_accepted(&result);
    assert_eq!(result.backing, Backing::None);
    assert_eq!(failed(&evidence(), DEVELOPMENT, 0, Some(&[8; 64])), ["report_data"]);
    assert_eq!(failed(&evidence(), DEVELOPMENT, 0, None), ["report_data"]);
}

#[test]
fn a_policy_for_hardware_refuses_it() {
    let reference = format!(
        "[[reference]]\nrelease = \"r\"\nkind = \"nitro\"\nregisters = {{ pcr0 = \"{}\" }}\n",
        "00".repeat(48)
    );
    let hardware = format!("version = 1\nkinds = [\"nitro\"]\n{reference}");
    assert_eq!(failed(&evidence(), &hardware, 0, Some(&[7; 64])), ["kind"]);
    let both = format!("version = 1\nkinds = [\"nitro\", \"software\"]\n{reference}");
    let error = Policy::parse(&both).unwrap_err().to_string();
    assert!(error.starts_with("line 2: `software` proves nothing"), "{error}");
}

#[test]
fn the_document_comes_back_as_it_was() {
    let text = evidence().to_json().to_string();
    assert_eq!(Evidence::parse(text.as_bytes()).unwrap(), evidence());
    let unknown = text.replace("software\":\"c", "softwares\":\"c");
    assert!(Evidence::parse(unknown.as_bytes()).is_err());
}
