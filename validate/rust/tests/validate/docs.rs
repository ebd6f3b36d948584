//! `docs/rejections.md` says what the code does, and every code really occurs.

use std::collections::{BTreeMap, BTreeSet};

use chancery_validate::{RejectionCode, Validator};

use crate::{corpus, draft, lookup};

fn document() -> String {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/rejections.md");
    std::fs::read_to_string(path).unwrap()
}

/// The rows of the table whose header row starts so, as cells.
fn table(document: &str, header: &str) -> Vec<Vec<String>> {
    let rows = document.lines().skip_while(|line| !line.starts_with(header)).skip(2);
    let cells =
        |row: &str| row.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect();
    rows.take_while(|line| line.starts_with('|')).map(cells).collect()
}

#[test]
fn the_table_of_codes_is_that_of_the_enum() {
    let rows = table(&document(), "| code |");
    let wanted: Vec<Vec<String>> = RejectionCode::ALL
        .iter()
        .map(|code| vec![format!("`{code}`"), code.meaning().to_owned(), code.remedy().to_owned()])
        .collect();
    let found: Vec<Vec<String>> = rows.iter().map(|row| row[..3].to_vec()).collect();
    for (found, wanted) in found.iter().zip(&wanted) {
        assert_eq!(found, wanted);
    }
    assert_eq!(found.len(), wanted.len());

    let produced = corpus::produced();
    for (code, row) in RejectionCode::ALL.iter().zip(&rows) {
        let example = row[3].trim_matches('`');
        match produced.get(code) {
            Some(cases) => {
                assert!(cases.contains(example), "{code}: `{example}` is none of {cases:?}")
            }
            None => assert_eq!(example, "looked up", "{code}"),
        }
    }
}

#[test]
fn every_code_is_produced() {
    let mut produced: BTreeSet<RejectionCode> = corpus::produced().into_keys().collect();
    produced.extend(lookup::produced());
    produced.insert(crate::anchor::produced());
    let missing: Vec<_> =
        RejectionCode::ALL.iter().filter(|code| !produced.contains(code)).collect();
    assert_eq!(missing, Vec::<&RejectionCode>::new());
}

#[test]
fn the_table_of_checks_is_the_order_of_the_judgement() {
    let document = document();
    let rows = table(&document, "| check |");
    let draft = draft::good();
    let validator = Validator::from_jwks(draft.configuration(), draft.keys().as_bytes()).unwrap();
    let explanation = validator.explain(&draft.token(), draft::NOW);
    let steps: Vec<_> = explanation.steps.iter().map(|step| format!("`{}`", step.name)).collect();
    // Some checks are made for several issuers or under profile `entra` only.
    let documented: Vec<_> = rows.iter().map(|row| row[0].clone()).collect();
    let strict: Vec<_> = documented.iter().filter(|name| steps.contains(name)).cloned().collect();
    assert_eq!(strict, steps);

    // Each check's row names exactly the codes with which the corpus ends at it.
    let mut ends: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for case in corpus::stored().into_values().flatten() {
        let Ok(validator) = case.validator() else { continue };
        let explanation = validator.explain(&case.token, case.now);
        if let (Err(rejection), Some(step)) = (explanation.verdict, explanation.steps.last()) {
            let codes = ends.entry(format!("`{}`", step.name)).or_default();
            codes.insert(format!("`{}`", rejection.code()));
        }
    }
    let told: BTreeMap<_, BTreeSet<_>> = rows
        .iter()
        .map(|row| (row[0].clone(), row[2].split(", ").map(str::to_owned).collect()))
        .collect();
    assert_eq!(told, ends);
}
