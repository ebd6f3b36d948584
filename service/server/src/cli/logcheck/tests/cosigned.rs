//! The second signature: forged, stripped, over another tree, by another key, or not there.

use super::*;
use crate::logs::tests::cosigned::Cosigned;

fn both(size: u64) -> Cosigned {
    Cosigned::of(entries(size).into_iter().skip(1))
}

/// A log under both keys, whose checkpoint of `cosigned` entries has both signatures.
fn files_of(both: &Cosigned, size: usize, cosigned: usize) -> Files {
    let mut files = files(&both.test, size);
    files.insert("vkey".into(), format!("{}\n{}\n", both.test.vkey(), both.key).into_bytes());
    files.insert("checkpoint.cosigned".into(), both.note(cosigned).into_bytes());
    files
}

#[test]
fn what_both_keys_signed_is_told() {
    let both = both(600);
    for cosigned in [1, 255, 256, 599, 600] {
        let found = check_files(&Memory::of(files_of(&both, 600, cosigned))).unwrap();
        assert_eq!(found.cosigned, Some(cosigned as u64));
    }
    // Not asked for yet: all of it is under one signature, which is said.
    let mut without = files_of(&both, 600, 1);
    without.remove("checkpoint.cosigned");
    assert_eq!(check_files(&Memory::of(without)).unwrap().cosigned, Some(0));
    // A log of one key.
    assert_eq!(check_files(&Memory::of(files(&log_of(600), 600))).unwrap().cosigned, None);
}

#[test]
fn a_forged_or_stripped_second_signature_is_found() {
    let (both, other) = (both(600), both(600));
    let with = |path: &str, bytes: String| {
        let mut files = files_of(&both, 600, 500);
        files.insert(path.to_owned(), bytes.into_bytes());
        disagreement(check_files(&Memory::of(files)))
    };
    let stripped = with("checkpoint.cosigned", both.test.checkpoint(500));
    assert!(stripped.contains("did not sign the checkpoint"), "{stripped}");
    let forged = with("checkpoint.cosigned", both.note(500).replace("\n500\n", "\n501\n"));
    assert!(forged.contains("does not verify"), "{forged}");
    let wrong = with("checkpoint", {
        let note = both.note(600);
        let middle = note.len() - 100;
        let other = if note[middle..].starts_with('A') { 'B' } else { 'A' };
        format!("{}{other}{}", &note[..middle], &note[middle + 1..])
    });
    assert!(wrong.contains("does not verify"), "{wrong}");
    let foreign = with("checkpoint.cosigned", other.note(500));
    assert!(foreign.contains("did not sign the checkpoint"), "{foreign}");
    // Another key beside the log than its entries say, or none.
    let keys = with("vkey", format!("{}\n{}\n", both.test.vkey(), other.key));
    assert!(keys.contains("did not sign the checkpoint"), "{keys}");
    let mut one_key = files_of(&both, 600, 500);
    one_key.insert("vkey".into(), format!("{}\n", both.test.vkey()).into_bytes());
    let why = disagreement(check_files(&Memory::of(one_key)));
    assert!(why.contains("not the one that its genesis states"), "{why}");
    let twice = with("vkey", format!("{}\n{}\n{}\n", both.test.vkey(), both.key, both.key));
    assert!(twice.contains("vkey: second line"), "{twice}");
}

#[test]
fn both_signatures_over_another_tree_are_found() {
    let both = both(600);
    let mut forked: Vec<Entry> = entries(600).into_iter().skip(1).collect();
    forked.swap(300, 301);
    let files = files_of(&both, 600, 600);
    // The same keys signed a tree that this log does not extend.
    let fork = both.forked(&forked);
    let mut lied = files;
    lied.insert("checkpoint.cosigned".into(), fork.note(500).into_bytes());
    let why = disagreement(check_files(&Memory::of(lied)));
    assert!(why.contains("with both signatures"), "{why}");
}
