use chancery_token::b64;
use proptest::prelude::*;

use super::*;
use crate::keys::{Identity, Recipient};
use crate::segment;
use crate::{Outcome, Token};

/// Some thousand records in three segments of two hours, and some that are in none yet.
struct Archive {
    given: Given,
    fresh: Vec<Record>,
    all: Vec<Record>,
}

const HOUR: u64 = 3_600_000;
const START: u64 = 498_740 * HOUR;

impl Archive {
    fn new() -> Self {
        let identities: Arc<[Identity]> = vec![Identity::generate().unwrap()].into();
        let recipients: Vec<Recipient> = identities.iter().map(|i| i.recipient().clone()).collect();
        let all: Vec<Record> = (0..4_000).map(record).collect();
        let mut files = Vec::new();
        for (number, range) in [0..1_500, 1_500..2_000, 2_000..3_900].into_iter().enumerate() {
            let records = &all[range.clone()];
            let (_, bytes) =
                segment::write(&[1; 16], number as u64, range.start as u64, records, &recipients)
                    .unwrap();
            files.push(bytes);
        }
        Self { given: Given(files, Some(identities)), fresh: all[3_900..].to_vec(), all }
    }

    fn find(&self, filter: &Filter, limit: usize) -> Found {
        find(&self.given, &self.fresh, filter, limit).unwrap()
    }

    fn expected(&self, filter: &Filter) -> Vec<Record> {
        self.all.iter().filter(|r| filter.matches(r)).cloned().collect()
    }
}

fn record(at: usize) -> Record {
    let hour = if at < 2_000 { 0 } else { 1 };
    let mut record = Record::new(START + hour * HOUR + at as u64 * 100, Outcome::Granted);
    record.realm = "r".into();
    record.client = format!("client-{}", at % 7);
    record.subject = format!("user:{at}");
    record.audiences = vec![format!("https://a{}.example", at % 3)];
    if at.is_multiple_of(10) {
        record.audiences.push("https://two.example".into());
    }
    if at.is_multiple_of(13) {
        record.outcome = Outcome::Refused;
        record.code = "scope_not_granted".into();
        record.count = 3;
        return record;
    }
    record.token = Some(Token {
        jti: format!("log.{at}.random{at}"),
        digest: [(at % 251) as u8; 32],
        kid: [(at / 1_000) as u8; 32],
        exp: START / 1_000 + at as u64,
        lifetime_s: 60,
    });
    record
}

fn filters() -> impl Strategy<Value = Filter> {
    let text = |values: &'static [&'static str]| {
        proptest::option::weighted(0.3, proptest::sample::select(values))
    };
    (
        0_u64..3 * HOUR,
        0_u64..3 * HOUR,
        proptest::option::weighted(0.2, 0_usize..4),
        text(&["client-1", "client-6", "nobody"]),
        text(&["user:5", "user:1990", "user:3999"]),
        text(&["https://a1.example", "https://two.example", "https"]),
        proptest::option::weighted(0.1, any::<u8>()),
        text(&["log.77.random77", "log.3950.random3950"]),
    )
        .prop_map(|(from, length, outcome, client, subject, audience, kid, jti)| Filter {
            from_ms: START - HOUR / 2 + from,
            to_ms: START - HOUR / 2 + from + length,
            outcome: outcome.map(|at| Outcome::ALL[at]),
            client: client.map(Into::into),
            subject: subject.map(Into::into),
            audience: audience.map(Into::into),
            kid: kid.map(|kid| b64::encode(&[kid % 4; 32])),
            jti: jti.map(Into::into),
            ..Filter::default()
        })
}

#[test]
fn scans_find_what_a_look_at_every_record_finds() {
    let archive = Archive::new();
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig::with_cases(200));
    let outcome = runner.run(&filters(), |filter| {
        let found = archive.find(&filter, 10_000);
        prop_assert_eq!(found.records, archive.expected(&filter));
        prop_assert!(!found.more);
        let by: Vec<Column> =
            ["client", "audience"].iter().filter_map(|n| Column::parse(n)).collect();
        let groups = count(&archive.given, &archive.fresh, &filter, &by).unwrap();
        let total: u64 = groups.iter().map(|g| g.count).sum();
        let expected: u64 = archive.expected(&filter).iter().map(|r| r.count).sum();
        prop_assert_eq!(total, expected);
        Ok(())
    });
    outcome.unwrap();
}

#[test]
fn one_token_is_found_by_each_of_its_names() {
    let archive = Archive::new();
    for at in [1, 1_501, 3_899, 3_999] {
        let token = archive.all[at].token.clone().unwrap();
        let by_jti = Filter { jti: Some(token.jti.clone()), ..Filter::default() };
        assert_eq!(archive.find(&by_jti, 10).records, [archive.all[at].clone()]);
        let by_digest = Filter { digest: Some(token.digest), ..Filter::default() };
        let found = archive.find(&by_digest, 100).records;
        assert!(found.contains(&archive.all[at]));
        assert!(found.iter().all(|r| r.token.as_ref().unwrap().digest == token.digest));
    }
    let none = Filter { jti: Some("log.1.random2".into()), ..Filter::default() };
    assert_eq!(archive.find(&none, 10), Found::default());
}

#[test]
fn a_limit_returns_the_oldest_and_says_that_there_are_more() {
    let archive = Archive::new();
    let all = Filter::default();
    let found = archive.find(&all, 10);
    assert_eq!(found.records, archive.all[..10]);
    assert!(found.more);
    assert!(!archive.find(&all, 4_000).more);
    assert!(archive.find(&all, 3_999).more);
    assert!(archive.find(&all, 0).records.is_empty());
}

#[test]
fn groups_say_how_many_since_when_and_until_when() {
    let archive = Archive::new();
    let by = [Column::parse("kid").unwrap()];
    let filter = Filter { outcome: Some(Outcome::Granted), ..Filter::default() };
    let groups = count(&archive.given, &archive.fresh, &filter, &by).unwrap();
    assert_eq!(groups.len(), 4);
    for group in &groups {
        let of_it = Filter { kid: Some(group.texts[0].clone()), ..filter.clone() };
        let records = archive.expected(&of_it);
        assert_eq!(group.count, records.len() as u64);
        assert_eq!(group.first_ms, records[0].time_ms);
        assert_eq!(group.last_ms, records.last().unwrap().time_ms);
        let until = records.iter().map(|r| r.token.as_ref().unwrap().exp).max().unwrap();
        assert_eq!(group.until_ms, until * 1_000);
    }
    let refused = Filter { outcome: Some(Outcome::Refused), ..filter.clone() };
    let groups = count(&archive.given, &archive.fresh, &refused, &[]).unwrap();
    assert_eq!(groups[0].until_ms, 0, "no token, no expiry");
    assert!(Column::parse("jti").is_none());
    let total = count(&archive.given, &archive.fresh, &Filter::default(), &[]).unwrap();
    assert_eq!(total.len(), 1);
    assert_eq!(total[0].count, archive.all.iter().map(|r| r.count).sum::<u64>());
}

#[test]
fn a_segment_that_does_not_open_is_an_error_not_an_answer() {
    let mut archive = Archive::new();
    let half = archive.given.0[1].len() / 2;
    archive.given.0[1].truncate(half);
    assert!(find(&archive.given, &[], &Filter::default(), 10_000).is_err());
    assert!(count(&archive.given, &[], &Filter::default(), &[]).is_err());
}
