//! The second identity key: it cosigns checkpoints of this signer's own trees and nothing else.

use chancery_entry::Entry;
use chancery_signer_api::*;
use chancery_tlog::note::{Note, Signature, VerifierKey};
use chancery_tlog::{Checkpoint, Hash, cosignature};

use crate::support::*;

fn cosign(host: &mut Host, size: u64, root: [u8; 32]) -> Result<Vec<u8>, Fault> {
    match host.signer.handle(Request::Cosign(Cosign { size, root: root.into() })) {
        Response::Cosigned(cosigned) => Ok(cosigned.signature.to_vec()),
        Response::Fault(fault) => Err(fault),
        other => panic!("{other:?}"),
    }
}

/// The key that the genesis entry states, under the log's name.
fn cosigning_key(host: &Host, name: &str) -> VerifierKey {
    let Ok(Entry::Genesis(genesis)) = Entry::decode(&host.log[0]) else { panic!("no genesis") };
    let public = genesis.cosigning_key.unwrap();
    VerifierKey::new_ml_dsa_44_cosigner(name, public.as_slice().try_into().unwrap()).unwrap()
}

/// A batch; the checkpoint that closes it.
fn batch(host: &mut Host) -> (Checkpoint, Note) {
    let asked = host.assertion();
    let prepared = host.prepare(vec![asked]);
    host.commit();
    let note = Note::parse(prepared.checkpoint.as_bytes()).unwrap();
    (Checkpoint::parse(&note.text).unwrap(), note)
}

#[test]
fn a_checkpoint_gets_a_second_signature_that_says_no_time() {
    let mut host = Host::started();
    let (checkpoint, mut note) = batch(&mut host);
    let key = cosigning_key(&host, &checkpoint.origin);
    let bytes = cosign(&mut host, checkpoint.size, checkpoint.root.0).unwrap();
    assert_eq!(bytes.len(), 8 + 2_420);
    assert_eq!(cosignature::verify(&key, &note.text, &bytes), Ok(0));
    note.insert(Signature { name: key.name().into(), key_id: key.key_id(), bytes }).unwrap();
    Checkpoint::open(note.encode().as_bytes(), &[key]).unwrap();
}

#[test]
fn an_earlier_tree_may_be_cosigned_for_a_while_and_no_other_one_ever() {
    let mut host = Host::started();
    let (first, _) = batch(&mut host);
    let (second, _) = batch(&mut host);
    assert!(cosign(&mut host, first.size, first.root.0).is_ok());
    for (size, root) in [
        (first.size, second.root),
        (second.size, first.root),
        (second.size + 1, second.root),
        (second.size, Hash([0; 32])),
        (0, chancery_tlog::empty_root()),
        (u64::MAX, second.root),
    ] {
        let refused = cosign(&mut host, size, root.0).unwrap_err();
        assert_eq!(refused.code, FaultCode::UnknownTree, "{size}");
    }
    for _ in 0..256 {
        batch(&mut host);
    }
    assert_eq!(
        cosign(&mut host, first.size, first.root.0).unwrap_err().code,
        FaultCode::UnknownTree
    );
}

#[test]
fn nothing_is_cosigned_before_the_service_has_said_what_it_holds() {
    let mut host = Host::started();
    let (checkpoint, _) = batch(&mut host);
    host.signer.connected();
    let fault = cosign(&mut host, checkpoint.size, checkpoint.root.0).unwrap_err();
    assert_eq!(fault.code, FaultCode::Phase);
}
