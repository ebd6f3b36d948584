//! The second signature: what is taken of it, what is published, and what a restart finds.

use chancery_entry::{Entry, Genesis};
use chancery_tlog::cosignature;
use chancery_token::{Algorithm, RsaBits, SigningKey};
use object_store::memory::InMemory;

use super::support::TestLog;
use super::*;

/// A log whose genesis states a second key, and that key.
pub(crate) struct Cosigned {
    pub test: TestLog,
    pub key: VerifierKey,
    signing: SigningKey,
}

impl Cosigned {
    /// Of this many entries.
    pub fn of(entries: impl IntoIterator<Item = Entry>) -> Self {
        let signing = SigningKey::generate(Algorithm::MlDsa44, RsaBits::B2048).unwrap();
        let public = signing.public().raw().to_vec();
        let genesis = Entry::Genesis(Genesis {
            software: "test".into(),
            started_at: 1_000,
            policy_digest: [1; 32],
            evidence_digest: None,
            predecessor: None,
            cosigning_key: Some(public.clone()),
        });
        let entries: Vec<Entry> = std::iter::once(genesis).chain(entries).collect();
        let test = TestLog::of_entries(7, &entries);
        let public = public.as_slice().try_into().unwrap();
        let key = VerifierKey::new_ml_dsa_44_cosigner(test.vkey().name(), public).unwrap();
        Self { test, key, signing }
    }

    /// Another history by the same two keys.
    pub fn forked(self, entries: &[Entry]) -> Self {
        let genesis = Entry::decode(&self.test.entry(0)).unwrap();
        let entries: Vec<Entry> = std::iter::once(genesis).chain(entries.iter().cloned()).collect();
        Self { test: TestLog::of_entries(7, &entries), ..self }
    }

    /// What the signer answers for a tree of this log.
    pub fn signature(&self, size: usize) -> Vec<u8> {
        let checkpoint = Checkpoint::new(self.key.name(), size as u64, self.test.root(size));
        let text = checkpoint.unwrap().body();
        let sign = |message: &[u8]| self.signing.sign(message).unwrap();
        cosignature::sign(&self.key, 0, &text, sign).unwrap().bytes
    }

    /// The checkpoint under both signatures.
    pub fn note(&self, size: usize) -> String {
        let checkpoint = Checkpoint::new(self.key.name(), size as u64, self.test.root(size));
        let sign = |message: &[u8]| self.signing.sign(message).unwrap();
        checkpoint.unwrap().cosign(&self.test.checkpoint(size), &self.key, 0, sign).unwrap()
    }

    fn opens(&self, note: &[u8]) -> u64 {
        let keys = [self.test.vkey().clone(), self.key.clone()];
        Checkpoint::open_by_all(note, &keys).unwrap().0.size
    }
}

fn log() -> Cosigned {
    let fall = |i: u64| {
        let reason = "a test".to_owned();
        Entry::Compromise(chancery_entry::Compromise { kid: [3; 32], at: i, reason })
    };
    Cosigned::of((1..40).map(fall))
}

fn store() -> Store {
    Store::new(Arc::new(InMemory::new()))
}

async fn read_back(store: &Store, test: &TestLog, object: &str) -> Vec<u8> {
    store.get(&test.path(object)).await.unwrap().to_vec()
}

#[tokio::test]
async fn a_checkpoint_is_published_under_both_signatures_and_found_again() {
    let (both, store) = (log(), store());
    let log = both.test.empty(store.clone());
    log.apply(&both.test.batch(0, 10)).unwrap();
    let asked = log.uncosigned().unwrap();
    // It grew while the signer was asked.
    log.apply(&both.test.batch(10, 12)).unwrap();
    log.take_cosignature(&asked, both.signature(10)).unwrap();
    log.publish().await.unwrap();
    let object = |name: &'static str| read_back(&store, &both.test, name);
    assert_eq!(object("vkey").await, format!("{}\n{}\n", both.test.vkey(), both.key).into_bytes());
    assert_eq!(object("checkpoint").await, both.test.checkpoint(12).into_bytes());
    assert_eq!(both.opens(&object("checkpoint.cosigned").await), 10);

    let asked = log.uncosigned().unwrap();
    log.take_cosignature(&asked, both.signature(12)).unwrap();
    assert!(log.uncosigned().is_none(), "nothing is left to sign");
    // In place of the same checkpoint with one signature.
    log.publish().await.unwrap();
    assert_eq!(both.opens(&object("checkpoint").await), 12);
    assert_eq!(
        both.opens(log.proof(3).await.unwrap().split_once("\n\n").unwrap().1.as_bytes()),
        12
    );

    // The signer dies: what came since has one signature, what was before keeps both.
    log.apply(&both.test.batch(12, 20)).unwrap();
    log.publish().await.unwrap();
    assert_eq!(object("checkpoint").await, both.test.checkpoint(20).into_bytes());
    for with_ledger in [true, false] {
        let again = Log::open(store.clone(), both.test.id(), with_ledger, None).await.unwrap();
        assert_eq!(both.opens(again.cosigned().unwrap().as_bytes()), 12);
        assert_eq!(again.vkeys(), format!("{}\n{}\n", both.test.vkey(), both.key));
        assert_eq!(again.uncosigned().unwrap().size, 20);
    }
}

#[tokio::test]
async fn a_signature_that_is_not_the_second_keys_over_that_tree_is_not_taken() {
    let both = log();
    let test = both.test.empty(store());
    test.apply(&both.test.batch(0, 10)).unwrap();
    let asked = test.uncosigned().unwrap();
    let mut forged = both.signature(10);
    *forged.last_mut().unwrap() ^= 1;
    let mut dated = both.signature(10);
    dated[7] = 1;
    let other = log().signature(10);
    for bad in [forged, dated, other, both.signature(9), Vec::new(), vec![0; 72]] {
        discontinuous(test.take_cosignature(&asked, bad));
        assert!(test.cosigned().is_none());
    }
    test.take_cosignature(&asked, both.signature(10)).unwrap();
    assert_eq!(both.opens(test.cosigned().unwrap().as_bytes()), 10);
    assert_eq!(both.opens(test.checkpoint().as_bytes()), 10);
}

#[tokio::test]
async fn what_the_store_holds_as_cosigned_counts_only_if_both_keys_signed_it() {
    let (both, store) = (log(), store());
    let log = both.test.empty(store.clone());
    log.apply(&both.test.batch(0, 10)).unwrap();
    log.publish().await.unwrap();
    let stripped = both.test.checkpoint(9);
    let ahead = both.note(11);
    let damaged = both.note(9).replace("\n9\n", "\n8\n");
    for bad in [stripped, ahead, damaged, "nonsense".to_owned()] {
        store.put(&both.test.path("checkpoint.cosigned"), bad.into_bytes().into()).await.unwrap();
        let again = Log::open(store.clone(), both.test.id(), true, None).await.unwrap();
        assert!(again.cosigned().is_none());
        assert_eq!(again.uncosigned().unwrap().size, 10);
    }
    store
        .put(&both.test.path("checkpoint.cosigned"), both.note(9).into_bytes().into())
        .await
        .unwrap();
    let again = Log::open(store, both.test.id(), true, None).await.unwrap();
    assert_eq!(both.opens(again.cosigned().unwrap().as_bytes()), 9);
}
