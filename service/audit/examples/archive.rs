//! Fills a folder with an archive of made-up records, as a service would have left it:
//! `cargo run --release -p chancery-audit --example archive -- FOLDER RECORDS`. For measurements.
//!
//! The records are spread over a day of steady issuing: 200 clients of unequal weight, 100,000
//! subjects, 50 audiences, 5,000 source addresses, a new key every hour, one refusal in fifty. Prints
//! what a record takes on disk and in time, and one token's `jti` and digest to ask for.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a tool for measurements")]

use std::path::PathBuf;
use std::time::{Duration, Instant};

use chancery_audit::keys::Identity;
use chancery_audit::segment::{self, MAX_ROWS};
use chancery_audit::{
    Opener, Outcome, Record, SealedSection, Section, SectionSealer, Token, hour_of,
};
use chancery_token::b64;

const LOG: [u8; 16] = [42; 16];
/// 2026-11-22T00:00:00Z.
const START_MS: u64 = 1_795_305_600_000;
const DAY_MS: u64 = 86_400_000;
/// Records of a batch, where what a batch costs is measured: what a signed request may ask for.
const BATCH: u64 = 32;

/// splitmix64: repeatable, and as good as random for what compresses.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    /// Small numbers more often than large ones.
    fn skewed(&mut self, limit: u64) -> u64 {
        let (a, b) = (self.below(limit), self.below(limit));
        a.min(b)
    }

    fn bytes<const N: usize>(&mut self) -> [u8; N] {
        std::array::from_fn(|_| (self.next() >> 24) as u8)
    }
}

fn record(at: u64, count: u64, random: &mut Random) -> Record {
    let time_ms = START_MS + (at / 20 * 20) * DAY_MS / count;
    let client = random.skewed(200);
    let refused = random.below(50) == 0;
    let mut record =
        Record::new(time_ms, if refused { Outcome::Refused } else { Outcome::Granted });
    record.realm = if client.is_multiple_of(3) { "organizations" } else { "consumers" }.into();
    record.client = format!("client-{client:03}");
    record.subject = format!("user:{:06}", random.skewed(100_000));
    record.audiences =
        vec![format!("https://service-{:02}.example", client % 7 * 7 + random.below(2))];
    record.scope = if client.is_multiple_of(2) { "read" } else { "read write" }.into();
    record.grant = format!("grant-{}", client % 11);
    record.policy_version = 7;
    let source = (client * 25 + random.skewed(25)) % 5_000;
    record.address = format!("10.{}.{}.{}", source / 250, source % 250, 7);
    record.user_agent = format!("sdk/{}.{} (linux)", client % 4, client % 9);
    let id = [&[9, 8, 7, 6, 5, 4, 3, 2][..], &at.to_be_bytes()].concat();
    record.request_id = b64::encode(&id);
    record.latency_ms = 2 + random.skewed(12) as u32;
    if refused {
        record.code = "scope_not_granted".into();
        record.detail = "scope `admin` is in no grant".into();
        return record;
    }
    let hour = (time_ms / 3_600_000) as u8;
    record.token = Some(Token {
        jti: format!("{}.{at}.{}", b64::encode(&LOG), b64::encode(&random.bytes::<16>())),
        digest: random.bytes(),
        kid: [hour; 32],
        exp: time_ms / 1_000 + 3_600,
        lifetime_s: 3_600,
    });
    record
}

/// Microseconds that a record costs in its batch, before its token leaves, and afterwards until its
/// segment is built.
fn batches(identity: &Identity, count: u64) -> (f64, f64) {
    let mut random = Random(2);
    let mut sealer = SectionSealer::new(&[identity.recipient().clone()]).unwrap();
    let mut opener = Opener::new(std::slice::from_ref(identity));
    let (mut sealing, mut opening) = (Duration::ZERO, Duration::ZERO);
    for at in 0..count / BATCH {
        let first = at * BATCH;
        let records = (0..BATCH).map(|n| record(first + n, count, &mut random)).collect();
        let section = Section { log: LOG, first, records };
        let started = Instant::now();
        let bytes = sealer.seal(&section).unwrap();
        sealing += started.elapsed();
        let started = Instant::now();
        let opened = SealedSection::read(&bytes).unwrap().open(&mut opener).unwrap();
        opening += started.elapsed();
        assert_eq!(opened, section);
    }
    let each = |time: Duration| time.as_secs_f64() * 1e6 / count as f64;
    (each(sealing), each(opening))
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let folder = PathBuf::from(arguments.next().unwrap());
    let count: u64 = arguments.next().unwrap().parse().unwrap();
    std::fs::create_dir_all(&folder).unwrap();
    let identity = Identity::generate().unwrap();
    std::fs::write(folder.join("audit.key"), identity.to_text().as_bytes()).unwrap();
    let recipients = [identity.recipient().clone()];
    let mut random = Random(1);
    let (mut number, mut first, mut bytes, mut spent) = (0, 0, 0, Duration::ZERO);
    let mut rows: Vec<Record> = Vec::new();
    let mut flush = |rows: &mut Vec<Record>| {
        if rows.is_empty() {
            return;
        }
        let started = Instant::now();
        let (range, file) = segment::write(&LOG, number, first, rows, &recipients).unwrap();
        spent += started.elapsed();
        let path = folder.join("store").join(range.name.object());
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, &file).unwrap();
        (number, first, bytes) = (number + 1, range.end(), bytes + file.len());
        rows.clear();
    };
    let mut sample = None;
    for at in 0..count {
        let record = record(at, count, &mut random);
        let other_hour =
            rows.first().is_some_and(|r| hour_of(r.time_ms) != hour_of(record.time_ms));
        if other_hour || rows.len() == MAX_ROWS {
            flush(&mut rows);
        }
        if at >= count / 2 && sample.is_none() {
            sample = record.token.clone();
        }
        rows.push(record);
    }
    flush(&mut rows);
    println!("{count} records in {number} segments, {:.1} bytes each", bytes as f64 / count as f64);
    println!("{:.2} microseconds each in a segment", spent.as_secs_f64() * 1e6 / count as f64);
    let (sealing, opening) = batches(&identity, count.clamp(BATCH, 1_000_000));
    println!("{sealing:.2} microseconds each to seal in batches of {BATCH}, {opening:.2} to open");
    let sample = sample.unwrap();
    println!("jti {}", sample.jti);
    println!("digest {}", b64::encode(&sample.digest));
}
