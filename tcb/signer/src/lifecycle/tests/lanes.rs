//! The lifecycle as the signer carries it out: real keys, a real log, explicit rotations,
//! compromises and changes of the policy. What is checked is what the log says to strangers.

use std::collections::BTreeMap;

use chancery_entry::Entry;
use chancery_policy::{Policy, PolicyDocument};
use chancery_signer_api::Notice;
use chancery_token::Algorithm;

use super::*;
use crate::clock::Now;
use crate::keys::{Key, Keys};
use crate::log::Log;

const ALGORITHM: Algorithm = Algorithm::Ed25519;

struct Bench {
    keys: Keys,
    log: Log,
    now_ms: u64,
    notices: Vec<Notice>,
    version: u64,
    schedule: Schedule,
    /// By thumbprint: what the log announced, narrowed where it says so.
    windows: BTreeMap<[u8; 32], (u64, u64)>,
    compromised: Vec<[u8; 32]>,
    /// Key and second of every token.
    signed: Vec<([u8; 32], u64)>,
}

impl Bench {
    fn new(schedule: Schedule) -> Self {
        let mut log = Log::new().unwrap();
        log.open("issuer.example/log").unwrap();
        let mut bench = Self {
            keys: Keys::new().unwrap(),
            log,
            now_ms: T0_MS,
            notices: Vec::new(),
            version: 0,
            schedule: schedule.clone(),
            windows: BTreeMap::new(),
            compromised: Vec::new(),
            signed: Vec::new(),
        };
        bench.follow(schedule, true);
        bench.sweep();
        bench.commit();
        bench
    }

    fn now(&self) -> Now {
        Now { ms: self.now_ms, boot_ms: self.now_ms, untrusted_by_ms: None }
    }

    fn now_s(&self) -> u64 {
        self.now_ms / 1_000
    }

    /// A policy with the realm `r`, or with another one only.
    fn follow(&mut self, schedule: Schedule, with_r: bool) {
        self.version += 1;
        let mut realm = realm(schedule.clone());
        if !with_r {
            realm.name = "other".into();
            realm.issuer = "https://issuer.example/other".into();
        }
        let document = PolicyDocument {
            version: self.version,
            log_prefix: "issuer.example/log".into(),
            realms: vec![realm],
            witnessed: None,
            protections: Vec::new(),
        };
        let policy = Policy::parse(&document.to_json().unwrap()).unwrap();
        self.keys.follow(&policy, self.now(), &mut self.log).unwrap();
        self.schedule = schedule;
    }

    fn sweep(&mut self) {
        let now = self.now();
        self.keys.sweep(now, &mut self.log, &mut self.notices).unwrap();
        for key in self.lane() {
            let over = self.now_s() >= key.facts.signs_until;
            assert_eq!(key.private().is_some(), key.facts.has_private);
            assert!(!(over && key.private().is_some()), "a private half outlived its window");
        }
    }

    fn lane(&self) -> &[Key] {
        self.keys.lanes().find(|l| l.realm() == "r").map_or(&[], |l| &l.keys)
    }

    /// Reads what the log says now, and takes it for durable.
    fn commit(&mut self) {
        self.read_log();
        self.keys.committed(self.log.next_index(), self.now());
    }

    fn read_log(&mut self) {
        for bytes in self.log.close_segment().unwrap().entries {
            match Entry::decode(&bytes).unwrap() {
                Entry::Announcement(a) if a.realm == "r" => {
                    self.windows.insert(a.kid, (a.nbf, a.signs_until));
                }
                Entry::Narrowing(n) => {
                    if let Some(window) = self.windows.get_mut(&n.kid) {
                        assert!(n.signs_until < window.1, "a window was widened");
                        assert!(n.signs_until >= window.0);
                        window.1 = n.signs_until;
                    }
                }
                Entry::Compromise(c) => self.compromised.push(c.kid),
                _ => {}
            }
        }
    }

    fn active(&self) -> Option<&Key> {
        let mut active = self.lane().iter().filter(|k| k.facts.may_sign(self.now_ms));
        let first = active.next();
        assert!(active.next().is_none(), "two active keys");
        first
    }

    /// A token by the active key, with the sweep that precedes it in a `Prepare`.
    fn sign(&mut self) -> Option<[u8; 32]> {
        self.sweep();
        let (now, iat) = (self.now(), self.now_s());
        let lane = self.keys.lane_mut("r", ALGORITHM)?;
        let at = lane.active(now)?;
        let key = &mut lane.keys[at];
        key.note_expiry(iat + key.facts.max_lifetime_s);
        let kid = *key.public.kid().as_bytes();
        self.signed.push((kid, iat));
        Some(kid)
    }

    fn run(&mut self, seconds: u64) {
        for _ in 0..seconds {
            self.now_ms += 1_000;
            self.sweep();
            self.commit();
        }
    }

    fn rotate(&mut self) -> Option<u64> {
        let now = self.now();
        let starts = self.keys.rotate("r", now, &mut self.log).unwrap();
        starts.into_iter().map(|(_, from)| from).next()
    }

    fn compromise(&mut self, kid: [u8; 32], include_retired: bool) -> Vec<[u8; 32]> {
        let now = self.now();
        let gone =
            self.keys.compromise(kid, "stolen", include_retired, now, &mut self.log).unwrap();
        self.sweep();
        gone
    }

    /// What the log shows to strangers, at any time.
    fn check(&mut self) {
        self.read_log();
        let believed: Vec<_> =
            self.windows.iter().filter(|(kid, _)| !self.compromised.contains(*kid)).collect();
        for (at, (_, a)) in believed.iter().enumerate() {
            for (_, b) in believed.iter().skip(at + 1) {
                assert!(
                    a.1 <= b.0 || b.1 <= a.0 || a.0 == a.1 || b.0 == b.1,
                    "{a:?} and {b:?} overlap"
                );
            }
        }
        for (kid, iat) in &self.signed {
            let (nbf, until) = self.windows[kid];
            assert!(nbf <= *iat && *iat < until, "iat {iat} outside {nbf}..{until}");
        }
        assert!(self.lane().len() <= MAX_LIVE_KEYS as usize);
        self.active();
    }

    fn noticed(&self, code: &str) -> usize {
        self.notices.iter().filter(|n| n.code == code).count()
    }
}

#[derive(Clone, Debug)]
enum Step {
    Run(u64),
    Stall(u64),
    Sign,
    Commit,
    Rotate,
    /// The key at this position, and the retired ones too or not.
    Compromise(usize, bool),
    /// Another schedule, with or without the realm.
    Follow(Schedule, bool),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => (0_u64..40).prop_map(Step::Run),
        2 => (0_u64..90_000).prop_map(Step::Stall),
        6 => Just(Step::Sign),
        4 => Just(Step::Commit),
        4 => Just(Step::Rotate),
        2 => (0_usize..8, any::<bool>()).prop_map(|(k, r)| Step::Compromise(k, r)),
        2 => (schedules(), prop::bool::weighted(0.8)).prop_map(|(s, r)| Step::Follow(s, r)),
    ];
    proptest::collection::vec(step, 1..60)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn whatever_is_asked_for_the_log_shows_no_overlap_and_no_stray_iat(
        schedule in schedules(),
        steps in steps(),
    ) {
        let mut bench = Bench::new(schedule);
        for step in steps {
            match step {
                Step::Run(seconds) => bench.run(seconds),
                Step::Stall(ms) => {
                    bench.now_ms += ms;
                    bench.active();
                }
                Step::Sign => {
                    bench.sign();
                }
                Step::Commit => bench.commit(),
                Step::Rotate => {
                    bench.sweep();
                    if let Some(from) = bench.rotate() {
                        prop_assert!(from >= bench.now_s());
                    }
                }
                Step::Compromise(at, retired) => {
                    let kid = bench.lane().get(at).map(|k| *k.public.kid().as_bytes());
                    if let Some(kid) = kid {
                        let gone = bench.compromise(kid, retired);
                        prop_assert!(gone.contains(&kid));
                        prop_assert!(bench.lane().iter().all(|k| *k.public.kid().as_bytes() != kid));
                    }
                }
                Step::Follow(schedule, with_r) => bench.follow(schedule, with_r),
            }
            bench.check();
        }
    }

    #[test]
    fn an_explicit_rotation_takes_effect_when_it_says(
        schedule in schedules(),
        wait in 0_u64..50,
    ) {
        let mut bench = Bench::new(schedule);
        bench.run(wait);
        bench.sweep();
        bench.commit();
        let Some(from) = bench.rotate() else { return Ok(()) };
        bench.commit();
        let before = bench.active().map(|k| *k.public.kid().as_bytes());
        prop_assert!(from > bench.now_s());
        // Never earlier than a relying party can know of it.
        let announced_now = bench.lane().iter().any(|k| k.facts.nbf == from && k.facts.committed_ms == Some(bench.now_ms));
        prop_assert!(!announced_now || from >= bench.now_s() + bench.schedule.publish_lead_s);
        bench.now_ms = from * 1_000 - 1;
        bench.sweep();
        let last = bench.active().map(|k| *k.public.kid().as_bytes());
        bench.now_ms = from * 1_000;
        bench.sweep();
        let after = bench.active().map(|k| *k.public.kid().as_bytes());
        prop_assert!(after.is_some(), "nothing signs at {from}");
        prop_assert!(after != before && after != last, "the old key still signs");
        bench.check();
    }
}

fn schedule(rotate_every_s: u64, publish_lead_s: u64) -> Schedule {
    Schedule { rotate_every_s, publish_lead_s, max_lifetime_s: 600, ..Schedule::default() }
}

#[test]
fn a_rotation_repeated_is_the_same_rotation() {
    let mut bench = Bench::new(schedule(3_600, 300));
    let from = bench.rotate().unwrap();
    assert_eq!(from, bench.now_s() + 300 + 15);
    assert_eq!(bench.rotate(), Some(from));
    bench.run(100);
    assert_eq!(bench.rotate(), Some(from));
    assert_eq!(bench.lane().len(), 2);
    bench.check();
}

#[test]
fn a_rotation_before_a_far_pending_key_leaves_no_gap() {
    // The successor of a two-hour key is announced an hour ahead; then the schedule gets short.
    let mut bench = Bench::new(schedule(7_200, 3_600));
    bench.run(7_200 - 3_600 - 180);
    assert_eq!(bench.lane().len(), 2, "the successor is pending");
    bench.follow(schedule(60, 10), true);
    bench.run(1_900);
    let from = bench.rotate().unwrap();
    for _ in 0..2_500 {
        bench.run(1);
        assert!(bench.active().is_some(), "nothing signs at {}, rotated at {from}", bench.now_s());
    }
    bench.check();
}

#[test]
fn a_longer_lead_does_not_stop_the_key_that_is_announced() {
    let mut bench = Bench::new(schedule(3_600, 300));
    bench.run(3_600 - 310);
    assert_eq!(bench.lane().len(), 2, "the successor is pending");
    bench.follow(schedule(3_600, 1_200), true);
    for _ in 0..3_600 {
        bench.run(1);
        assert!(bench.active().is_some(), "nothing signs at {}", bench.now_s());
    }
    assert_eq!(bench.noticed("rotation_gap") + bench.noticed("signing_stopped"), 0);
    bench.check();
}

#[test]
fn a_shorter_lead_waits_for_caches_of_the_longer_one() {
    let before = schedule(7_200, 3_600);
    let mut bench = Bench::new(before.clone());
    bench.follow(schedule(7_200, 10), true);
    let from = bench.rotate().unwrap();
    assert!(from >= bench.now_s() + before.key_set_max_age_s(), "cached key sets do not know it");
    bench.run(before.key_set_max_age_s() + 10);
    let from = bench.rotate().unwrap();
    assert!(from <= bench.now_s() + 13, "later ones need not wait");
    bench.check();
}

#[test]
fn a_lane_that_leaves_the_policy_keeps_its_last_second() {
    let mut bench = Bench::new(schedule(3_600, 300));
    let kid = bench.sign().unwrap();
    bench.follow(schedule(3_600, 300), false);
    bench.check();
    let key = bench.lane().iter().find(|k| *k.public.kid().as_bytes() == kid).unwrap();
    assert!(key.private().is_none(), "nothing signs with it any more");
    assert_eq!(key.facts.state(bench.now_ms), State::Retired);
    assert_eq!(bench.sign(), None);
    bench.run(650);
    assert!(bench.lane().is_empty(), "and it leaves when its last token has expired");
}

#[test]
fn a_realm_that_comes_back_waits_for_its_lead() {
    let mut bench = Bench::new(schedule(3_600, 300));
    bench.sign().unwrap();
    bench.follow(schedule(3_600, 300), false);
    bench.run(5);
    bench.follow(schedule(3_600, 300), true);
    bench.run(299);
    assert!(bench.active().is_none());
    bench.run(2);
    assert!(bench.active().is_some());
    assert!(bench.noticed("rotation_gap") >= 1);
    bench.check();
}

#[test]
fn a_replacement_waits_for_the_second_in_which_its_realm_was_away() {
    let short = |every, lead| Schedule { max_lifetime_s: 1, skew_s: 0, ..schedule(every, lead) };
    let mut bench = Bench::new(short(12, 80));
    bench.follow(short(6, 1), false);
    bench.follow(short(1, 1), true);
    bench.sign();
    let pending = *bench.lane().last().unwrap().public.kid().as_bytes();
    bench.compromise(pending, false);
    bench.check();
    bench.run(1);
    assert!(bench.sign().is_some());
    bench.check();
}

#[test]
fn a_compromise_takes_the_realm_and_spares_the_retired() {
    let mut bench = Bench::new(schedule(600, 60));
    let retired = bench.sign().unwrap();
    bench.run(545);
    assert_eq!(bench.lane().len(), 2);
    bench.run(60);
    let active = bench.sign().unwrap();
    assert_ne!(retired, active);
    let gone = bench.compromise(active, false);
    assert!(gone.contains(&active) && !gone.contains(&retired));
    let fresh = bench.sign().expect("a replacement signs at once");
    assert_ne!(fresh, active);
    assert_eq!(bench.active().unwrap().facts.start, Start::Replacement);
    let gone = bench.compromise(fresh, true);
    assert!(gone.contains(&fresh) && gone.contains(&retired));
    assert!(bench.lane().iter().all(|k| k.facts.start != Start::First));
    bench.check();
}

#[test]
fn a_compromise_of_a_strangers_key_is_logged_and_takes_none_of_ours() {
    let mut bench = Bench::new(schedule(600, 60));
    assert_eq!(bench.compromise([7; 32], true), Vec::<[u8; 32]>::new());
    bench.check();
    assert_eq!(bench.compromised, [[7; 32]]);
    assert!(bench.active().is_some());
}

#[test]
fn with_an_untrusted_clock_keys_are_destroyed_and_none_is_made() {
    let mut bench = Bench::new(schedule(600, 60));
    bench.now_ms += 700_000;
    let now = Now { untrusted_by_ms: Some(1), ..bench.now() };
    bench.keys.sweep(now, &mut bench.log, &mut bench.notices).unwrap();
    assert!(bench.lane().iter().all(|k| k.private().is_none()));
    assert_eq!(bench.log.waiting(), 0);
}

#[test]
fn a_service_that_never_collects_does_not_make_the_signer_grow() {
    let mut bench = Bench::new(Schedule {
        rotate_every_s: 1,
        publish_lead_s: 1,
        max_lifetime_s: 1,
        skew_s: 0,
        ..Schedule::default()
    });
    for _ in 0..4_000 {
        bench.now_ms += 1_000;
        bench.sweep();
    }
    assert!(bench.log.waiting() <= crate::log::MAX_WAITING_ENTRIES + 64);
    assert!(bench.noticed("signing_stopped") >= 1, "and it is said");
    bench.commit();
    bench.run(6);
    assert!(bench.sign().is_some(), "signing goes on once the service is back");
}

#[test]
fn the_end_of_a_manual_window_is_said_once() {
    let mut bench = Bench::new(Schedule {
        rotation: Rotation::Manual,
        manual_window_s: 100,
        publish_lead_s: 5,
        ..Schedule::default()
    });
    bench.run(99);
    assert_eq!(bench.noticed("signing_stopped"), 0);
    bench.run(100);
    assert_eq!(bench.noticed("signing_stopped"), 1);
    let from = bench.rotate().unwrap();
    bench.commit();
    bench.run(from - bench.now_s());
    assert!(bench.sign().is_some());
    bench.check();
}

#[test]
fn an_rsa_lane_that_is_asked_to_rotate_before_its_first_key_signs_at_once_when_it_has_one() {
    let mut log = Log::new().unwrap();
    log.open("issuer.example/log").unwrap();
    let mut keys = Keys::new().unwrap();
    let mut realm = realm(Schedule::default());
    realm.algorithms = vec![Algorithm::Rs256];
    let document = PolicyDocument {
        version: 1,
        log_prefix: "issuer.example/log".into(),
        realms: vec![realm],
        witnessed: None,
        protections: Vec::new(),
    };
    let policy = Policy::parse(&document.to_json().unwrap()).unwrap();
    let now = Now { ms: T0_MS, boot_ms: 0, untrusted_by_ms: None };
    keys.follow(&policy, now, &mut log).unwrap();
    let mut notices = Vec::new();
    keys.sweep(now, &mut log, &mut notices).unwrap();
    let asked = keys.rotate("r", now, &mut log).unwrap();
    assert_eq!(asked, [("RS256".to_owned(), T0_MS / 1_000)]);
    for _ in 0..600 {
        std::thread::sleep(std::time::Duration::from_millis(50));
        keys.sweep(now, &mut log, &mut notices).unwrap();
        let lane = keys.lanes().next().unwrap();
        if let Some(at) = lane.active(now) {
            assert_eq!(lane.keys[at].facts.start, Start::First);
            return;
        }
    }
    panic!("no RSA key within 30 s");
}
