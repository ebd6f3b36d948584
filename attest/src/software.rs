//! Software evidence: what a program says about itself, for development. Nothing signs it. Its kind
//! is [`Kind::Software`](crate::Kind::Software), whose backing is none, and a policy that takes it
//! takes no other.

use std::collections::BTreeMap;

use crate::bytes::{Hex, hex};
use crate::result::{Appraisal, Observed};

pub(crate) fn judge(appraisal: &mut Appraisal, software: &str, report_data: &Hex) -> Observed {
    appraisal.claim("software", software);
    let value = "nothing signs software evidence; it is for development";
    appraisal.check("unsigned", true, value);
    Observed { registers: BTreeMap::new(), report_data: report_data.0.clone() }
}

pub(crate) fn show(software: &str, report_data: &Hex) -> Vec<(String, String)> {
    let field = |name: &str, value: String| (name.to_owned(), value);
    vec![field("software", software.to_owned()), field("report_data", hex(&report_data.0))]
}
