//! What long logs cost: makes one of any length without issuing its tokens, and measures starts.
//!
//! ```console
//! cargo build --release -p chancery --example biglog
//! target/release/examples/biglog make STORE 10000000   # prints the log's folder
//! chancery log check FOLDER
//! target/release/examples/biglog start STORE           # opens it without and with a summary
//! ```
#![expect(clippy::unwrap_used, reason = "a tool for measurements ends at the first failure")]

use std::path::{Path, PathBuf};
use std::time::Instant;

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use chancery::ledger::SummaryKey;
use chancery::logs::Log;
use chancery::store::Store;
use chancery_entry::{Announcement, Entry, Genesis, Start, TokenEntry};
use chancery_tlog::note::VerifierKey;
use chancery_tlog::{
    Checkpoint, EntriesTileId, LogId, TILE_WIDTH, TileBuilder, encode_entry, leaf_hash,
};
use chancery_token::{Algorithm, RsaBits, SigningKey};

/// Entries for which one key signs: an hour of 28 tokens a second.
const ENTRIES_PER_KEY: u64 = 100_000;
/// The log's own key; whoever reads this can sign for it.
const SEED: [u8; 32] = [42; 32];

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments.as_slice() {
        ["make", store, entries] => make(Path::new(store), entries.parse().unwrap()),
        ["start", store] => start(Path::new(store)),
        _ => eprintln!("biglog make STORE ENTRIES | biglog start STORE"),
    }
}

fn identity() -> (Ed25519KeyPair, VerifierKey, LogId) {
    let key = Ed25519KeyPair::from_seed_unchecked(&SEED).unwrap();
    let public: [u8; 32] = key.public_key().as_ref().try_into().unwrap();
    let id = LogId::of(&public);
    let vkey = VerifierKey::new_ed25519(&format!("biglog.example/log/{id}"), &public).unwrap();
    (key, vkey, id)
}

/// Writes what a service publishes of a log of this size.
fn make(store: &Path, size: u64) {
    let (key, vkey, id) = identity();
    let folder = store.join("log").join(id.to_string());
    let mut builder = TileBuilder::new();
    let mut bundle = Vec::new();
    let mut signer = [0; 32];
    for index in 0..size {
        let entry = match index {
            0 => genesis(),
            i if i % ENTRIES_PER_KEY == 1 => announcement(&mut signer),
            i => {
                let iat = 1_000_000 + i / 28;
                Entry::Token(TokenEntry::of(signer, iat, iat + 600, &i.to_be_bytes()))
            }
        };
        let bytes = entry.encode().unwrap();
        encode_entry(&mut bundle, &bytes).unwrap();
        for (tile, bytes) in builder.append(leaf_hash(&bytes)) {
            write(&folder, &tile.path(), &bytes);
        }
        if builder.size().is_multiple_of(TILE_WIDTH) {
            let at = EntriesTileId { index: index / TILE_WIDTH, width: 256 };
            write(&folder, &at.path(), &bundle);
            bundle.clear();
        }
    }
    for (tile, bytes) in builder.edge() {
        write(&folder, &tile.path(), bytes);
    }
    if let Some(edge) = EntriesTileId::at(size / TILE_WIDTH, size) {
        write(&folder, &edge.path(), &bundle);
    }
    let checkpoint = Checkpoint::new(vkey.name(), size, builder.root()).unwrap();
    let note = checkpoint.sign(&vkey, |m| key.sign(m).as_ref().to_vec()).unwrap();
    write(&folder, "checkpoint", note.as_bytes());
    write(&folder, "vkey", format!("{vkey}\n").as_bytes());
    println!("{}", folder.display());
}

fn genesis() -> Entry {
    Entry::Genesis(Genesis {
        software: "biglog".into(),
        started_at: 1_000_000,
        policy_digest: [0; 32],
        evidence_digest: None,
        predecessor: None,
        cosigning_key: None,
    })
}

fn announcement(signer: &mut [u8; 32]) -> Entry {
    let key = SigningKey::generate(Algorithm::Es256, RsaBits::B2048).unwrap();
    let mut jwk = key.public().jwk();
    jwk.insert("alg".into(), "ES256".into());
    *signer = *key.public().kid().as_bytes();
    Entry::Announcement(Announcement {
        realm: "consumers".into(),
        issuer: "https://biglog.example/consumers".into(),
        jwk: serde_json::Value::Object(jwk).to_string(),
        kid: *signer,
        algorithm: "ES256".into(),
        nbf: 0,
        signs_until: 1 << 40,
        max_lifetime_s: 3_600,
        start: Start::First,
    })
}

fn write(folder: &Path, path: &str, bytes: &[u8]) {
    let file: PathBuf = folder.join(path);
    std::fs::create_dir_all(file.parent().unwrap()).unwrap();
    std::fs::write(file, bytes).unwrap();
}

/// Opens the log as a start of the service does.
fn start(store: &Path) {
    let (_, _, id) = identity();
    let key = SummaryKey::new(&[1; 32]);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let store = Store::local(store).unwrap();
    let open = |what: &str| {
        let started = Instant::now();
        let log = runtime.block_on(Log::open(store.clone(), id, true, Some(&key))).unwrap();
        let (size, _) = log.size_and_root();
        println!("{what}: {size} entries, {:.1} ms", started.elapsed().as_secs_f64() * 1_000.0);
        log
    };
    let object = format!("log/{id}/ledger-summary");
    runtime.block_on(store.delete(&object)).unwrap();
    for _ in 0..3 {
        open("without summary");
    }
    let log = open("without summary");
    let whole = log.ledger();
    let started = Instant::now();
    runtime.block_on(log.summarise());
    let wrote = started.elapsed().as_secs_f64() * 1_000.0;
    let bytes = runtime.block_on(store.get(&object)).unwrap().len();
    println!("summary: {bytes} bytes, written in {wrote:.1} ms");
    for _ in 0..3 {
        assert!(open("with summary").ledger() == whole);
    }
}
