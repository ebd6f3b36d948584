//! The lifecycle as a pure function of time, over arbitrary schedules and disturbances. `lanes`
//! drives the same through [`crate::keys::Keys`] with real keys and a log; `model` enumerates
//! rotation together with a relying party that caches.

mod lanes;
mod model;

use chancery_policy::RealmDocument;
use proptest::prelude::*;

use super::*;

/// 2027 or so, on a whole second.
const T0_MS: u64 = 1_800_000_000_000;

/// A realm document with this schedule, to be judged by the configuration check.
fn realm(schedule: Schedule) -> RealmDocument {
    RealmDocument {
        name: "r".into(),
        issuer: "https://issuer.example/r".into(),
        algorithms: vec![chancery_token::Algorithm::Ed25519],
        rsa_bits: 2048,
        kubernetes: None,
        schedule,
        clients: Vec::new(),
    }
}

/// Schedules from seconds to months that the configuration check accepts.
fn schedules() -> impl Strategy<Value = Schedule> {
    let window = prop_oneof![1_u64..12, 12_u64..600, 600_u64..100_000, Just(86_400 * 90)];
    (window, 0_u64..1_000, 0_u64..1_000, 0_u64..40, any::<bool>())
        .prop_map(|(window, lead, lifetime, skew_s, manual)| {
            // Lead and lifetime as up to thirty windows together: the bound of live keys is met
            // from below in a good part of the cases.
            let share = |permille: u64| (window * permille / 33).max(1);
            Schedule {
                rotation: if manual { Rotation::Manual } else { Rotation::Automatic },
                rotate_every_s: window,
                publish_lead_s: share(lead),
                max_lifetime_s: share(lifetime),
                skew_s,
                manual_window_s: window,
            }
        })
        .prop_filter("refused by the configuration check", |s| realm(s.clone()).check().is_ok())
}

fn automatic() -> impl Strategy<Value = Schedule> {
    schedules().prop_map(|s| Schedule { rotation: Rotation::Automatic, ..s })
}

/// One key with its number; what the signer would hold.
#[derive(Clone, Copy, Debug)]
struct SimKey {
    number: usize,
    facts: KeyFacts,
}

/// A token that was signed.
#[derive(Clone, Copy, Debug)]
struct Token {
    key: usize,
    exp: u64,
}

/// One lane whose actions are carried out on paper.
struct Sim {
    schedule: Schedule,
    now_ms: u64,
    lane: LaneFacts,
    keys: Vec<SimKey>,
    /// Every key ever announced in this lane's life, with its window as announced.
    announced: Vec<KeyFacts>,
    tokens: Vec<Token>,
    /// The gaps that were told to the operator.
    gaps: Vec<u64>,
}

impl Sim {
    fn new(schedule: Schedule) -> Self {
        Self {
            schedule,
            now_ms: T0_MS,
            lane: LaneFacts::default(),
            keys: Vec::new(),
            announced: Vec::new(),
            tokens: Vec::new(),
            gaps: Vec::new(),
        }
    }

    fn now_s(&self) -> u64 {
        self.now_ms / 1_000
    }

    fn sweep(&mut self) {
        let facts: Vec<KeyFacts> = self.keys.iter().map(|k| k.facts).collect();
        let mut forget = Vec::new();
        for action in sweep(self.now_ms, &facts, self.lane, &self.schedule) {
            match action {
                Action::Destroy(at) => self.keys[at].facts.has_private = false,
                Action::Forget(at) => forget.push(at),
                Action::Announce { nbf, signs_until, start, gap_s } => {
                    self.announce(nbf, signs_until, start, gap_s);
                }
            }
        }
        for at in forget.into_iter().rev() {
            self.keys.remove(at);
        }
    }

    fn announce(&mut self, nbf: u64, signs_until: u64, start: Start, gap_s: u64) {
        let facts = KeyFacts {
            nbf,
            signs_until,
            start,
            committed_ms: None,
            has_private: true,
            last_exp: None,
            max_lifetime_s: self.schedule.max_lifetime_s,
            skew_s: self.schedule.skew_s,
            lead_s: self.schedule.publish_lead_s,
            compromised: false,
        };
        self.keys.push(SimKey { number: self.announced.len(), facts });
        self.announced.push(facts);
        self.lane.last_end = Some(signs_until);
        self.lane.replacement_due = false;
        if gap_s > 0 {
            self.gaps.push(gap_s);
        }
    }

    fn commit(&mut self) {
        for key in self.keys.iter_mut().filter(|k| k.facts.committed_ms.is_none()) {
            key.facts.committed_ms = Some(self.now_ms);
        }
    }

    fn active(&self) -> Option<usize> {
        self.keys.iter().position(|k| k.facts.may_sign(self.now_ms))
    }

    /// Like a `Prepare`: the sweep and `iat` share one reading.
    fn sign(&mut self, lifetime_s: u64) {
        self.sweep();
        let Some(at) = self.active() else { return };
        let iat = self.now_s();
        let exp = iat + lifetime_s.clamp(1, self.schedule.max_lifetime_s);
        let SimKey { number, facts } = &mut self.keys[at];
        facts.last_exp = Some(facts.last_exp.unwrap_or(0).max(exp));
        assert!(facts.nbf <= iat && iat < facts.signs_until, "iat outside the window");
        if facts.start == Start::Led {
            let lead_ms = self.schedule.publish_lead_s * 1_000;
            let committed = facts.committed_ms.expect("signed without a committed announcement");
            assert!(committed + lead_ms <= self.now_ms, "signed before publish_lead had passed");
        }
        self.tokens.push(Token { key: *number, exp });
    }

    /// All that is believed falls, as after a compromise of the active key.
    fn compromise(&mut self) {
        for key in self.keys.iter_mut().filter(|k| k.facts.has_private) {
            key.facts.compromised = true;
            key.facts.has_private = false;
            self.tokens.retain(|t| t.key != key.number);
            // Its window no longer counts against those of others.
            self.announced[key.number].compromised = true;
        }
        self.lane.replacement_due = self.lane.last_end.is_some();
        self.sweep();
    }

    /// What holds at any moment, whether or not a sweep came in time.
    fn check_always(&self) {
        let active = self.keys.iter().filter(|k| k.facts.may_sign(self.now_ms)).count();
        assert!(active <= 1, "{active} active keys at {}", self.now_ms);
        assert!(self.keys.len() <= MAX_LIVE_KEYS as usize, "{} live keys", self.keys.len());
        for token in self.tokens.iter().filter(|t| self.now_s() < t.exp + self.schedule.skew_s) {
            let key = self.keys.iter().find(|k| k.number == token.key);
            let published = key.is_some_and(|k| self.now_s() < k.facts.leaves_at(self.now_s()));
            assert!(published, "key {} left before its token expired", token.key);
        }
    }

    /// What holds right after a sweep.
    fn check_swept(&self) {
        for key in &self.keys {
            let over = self.now_s() >= key.facts.signs_until;
            assert!(!(over && key.facts.has_private), "a private half outlived its window");
            assert_ne!(key.facts.state(self.now_ms), State::Gone, "a gone key was kept");
        }
        let windows: Vec<_> = self.announced.iter().filter(|k| !k.compromised).collect();
        for (at, a) in windows.iter().enumerate() {
            assert!(a.nbf < a.signs_until, "an empty window");
            for b in &windows[at + 1..] {
                let apart = a.signs_until <= b.nbf || b.signs_until <= a.nbf;
                assert!(apart, "windows overlap: {a:?} and {b:?}");
            }
        }
    }

    /// The next second in which anything can change, counted from the present one.
    fn next_event_s(&self) -> u64 {
        let lead = self.schedule.publish_lead_s;
        let announcement =
            self.lane.last_end.unwrap_or(0).saturating_sub(lead + self.schedule.margin_s());
        let of_keys = self
            .keys
            .iter()
            .flat_map(|k| [k.facts.nbf, k.facts.signs_until, k.facts.leaves_at(self.now_s())]);
        let later = of_keys.chain([announcement]).filter(|s| *s > self.now_s());
        later.min().unwrap_or(self.now_s() + 1)
    }
}

#[derive(Clone, Debug)]
enum Step {
    /// Time passes with a sweep each second.
    Run(u64),
    /// Time passes without any.
    Stall(u64),
    Sign(u64),
    Commit,
    Compromise,
    /// A new signer: its lanes start anew.
    Restart,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => (0_u64..12_000).prop_map(Step::Run),
        2 => (0_u64..400_000).prop_map(Step::Stall),
        6 => (1_u64..5_000).prop_map(Step::Sign),
        6 => Just(Step::Commit),
        1 => Just(Step::Compromise),
        1 => Just(Step::Restart),
    ];
    proptest::collection::vec(step, 1..120)
}

/// Stalls and runs are scaled to the schedule, so that they matter for long ones too.
fn scaled(ms: u64, schedule: &Schedule) -> u64 {
    ms * schedule.window_s().clamp(10, 100_000) / 100
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn whatever_happens_the_rules_hold(schedule in schedules(), steps in steps()) {
        let mut sim = Sim::new(schedule.clone());
        for step in steps {
            match step {
                Step::Run(ms) => {
                    let until = sim.now_ms + scaled(ms, &schedule);
                    while sim.now_ms < until {
                        sim.now_ms = until.min((sim.next_event_s() * 1_000).max(sim.now_ms + 1));
                        sim.check_always();
                        sim.sweep();
                        sim.check_swept();
                    }
                }
                Step::Stall(ms) => {
                    // A stall is looked at in many places, because nobody sweeps in it.
                    for _ in 0..20 {
                        sim.now_ms += scaled(ms, &schedule) / 20 + 1;
                        let active = sim.keys.iter().filter(|k| k.facts.may_sign(sim.now_ms)).count();
                        prop_assert!(active <= 1);
                    }
                    sim.sweep();
                    sim.check_swept();
                }
                Step::Sign(lifetime) => sim.sign(lifetime),
                Step::Commit => sim.commit(),
                Step::Compromise => sim.compromise(),
                Step::Restart => {
                    sim = Sim { now_ms: sim.now_ms, ..Sim::new(schedule.clone()) };
                    sim.sweep();
                    prop_assert!(sim.active().is_some(), "the first key signs at once");
                    prop_assert_eq!(sim.announced[0].start, Start::First);
                }
            }
            sim.check_always();
        }
    }

    #[test]
    fn an_undisturbed_lane_never_stops_and_its_successor_is_known_in_time(
        schedule in automatic(),
        commit_ms in 0_u64..=1_000,
    ) {
        let mut sim = Sim::new(schedule.clone());
        let end = sim.now_s() + 4 * schedule.window_s() + 2 * schedule.publish_lead_s + 20;
        let mut events = 0;
        while sim.now_s() < end && events < 300 {
            events += 1;
            sim.sweep();
            sim.check_swept();
            prop_assert!(sim.active().is_some(), "nothing signs at {}", sim.now_ms);
            sim.now_ms += commit_ms;
            sim.commit();
            sim.now_ms = sim.now_ms - commit_ms + 999;
            prop_assert!(sim.active().is_some(), "nothing signs at {}", sim.now_ms);
            // A relying party that looks now knows every key of the coming publish_lead.
            let known = sim.keys.iter().filter(|k| k.facts.committed_ms.is_some());
            let known_until = known.map(|k| k.facts.signs_until).max().unwrap_or(0);
            if commit_ms < 1_000 {
                prop_assert!(known_until > sim.now_s() + schedule.publish_lead_s);
            }
            // Nothing happens between two events; the second before one is swept as well.
            sim.now_ms = (sim.next_event_s() - 1).max(sim.now_s() + 1) * 1_000;
            sim.check_always();
        }
        prop_assert!(sim.gaps.is_empty(), "a gap was told: {:?}", sim.gaps);
        prop_assert!(sim.announced.iter().skip(1).all(|k| k.start == Start::Led));
        prop_assert!(sim.announced.len() >= 3);
    }

    #[test]
    fn after_a_stall_past_the_window_nothing_signs_for_a_lead_and_the_gap_is_told(
        schedule in automatic(),
        late_s in 0_u64..1_000_000,
        part_ms in 0_u64..1_000,
    ) {
        let mut sim = Sim::new(schedule.clone());
        sim.sweep();
        sim.commit();
        sim.sweep();
        sim.commit();
        // Past the end of every window that was announced.
        let last_end = sim.lane.last_end.unwrap();
        sim.now_ms = (last_end + late_s) * 1_000 + part_ms;
        prop_assert!(sim.active().is_none());
        sim.sweep();
        sim.commit();
        prop_assert!(sim.keys.iter().all(|k| !k.facts.has_private || k.facts.nbf > sim.now_s()));
        let lead = schedule.publish_lead_s;
        prop_assert_eq!(sim.gaps.as_slice(), [lead]);
        let resumed = sim.now_s() + lead;
        let committed_led = sim.now_ms + lead * 1_000;
        for at in [sim.now_ms, sim.now_ms + lead * 500, resumed * 1_000 - 1, committed_led - 1] {
            sim.now_ms = at.max(sim.now_ms);
            prop_assert!(sim.active().is_none(), "signs before the lead has passed");
        }
        sim.now_ms = committed_led;
        prop_assert!(sim.active().is_some(), "does not sign after the lead");
    }

    #[test]
    fn a_late_commit_delays_the_first_signature_and_moves_no_window(
        schedule in automatic(),
        delay_ms in 0_u64..10_000_000,
    ) {
        let mut sim = Sim::new(schedule.clone());
        sim.sweep();
        sim.commit();
        let announced = sim.announced.len();
        sim.now_ms = (sim.lane.last_end.unwrap() - schedule.publish_lead_s - schedule.margin_s()) * 1_000;
        sim.sweep();
        prop_assume!(sim.announced.len() > announced);
        let key = sim.announced[announced];
        sim.now_ms += delay_ms;
        sim.commit();
        let from = (sim.now_ms + schedule.publish_lead_s * 1_000).max(key.nbf * 1_000);
        let signs = |sim: &Sim, at: u64| {
            sim.keys.iter().any(|k| k.number == announced && k.facts.may_sign(at))
        };
        prop_assert!(!signs(&sim, from - 1));
        prop_assert_eq!(signs(&sim, from), from / 1_000 < key.signs_until);
        prop_assert!(!signs(&sim, key.signs_until * 1_000));
    }

    #[test]
    fn manual_rotation_announces_the_first_key_and_none_after_it(
        schedule in schedules().prop_map(|s| Schedule { rotation: Rotation::Manual, ..s }),
    ) {
        let mut sim = Sim::new(schedule);
        sim.sweep();
        let end = sim.lane.last_end.unwrap();
        for s in [sim.now_s(), end - 1, end, end + 1, end * 2] {
            sim.now_ms = s * 1_000;
            sim.sweep();
            sim.check_swept();
            prop_assert_eq!(sim.active().is_some(), s < end);
        }
        prop_assert_eq!(sim.announced.len(), 1);
    }

    #[test]
    fn a_retired_key_leaves_with_its_last_token_and_an_unused_one_at_once(
        schedule in schedules(),
        lifetime in proptest::option::of(1_u64..100_000),
    ) {
        let mut sim = Sim::new(schedule.clone());
        sim.sweep();
        sim.commit();
        if let Some(lifetime) = lifetime {
            sim.sign(lifetime);
        }
        let key = sim.announced[0];
        let last = sim.tokens.first().map_or(key.signs_until, |t| t.exp.max(key.signs_until));
        sim.now_ms = key.signs_until * 1_000;
        let leaves = last + schedule.skew_s;
        for at in [leaves.saturating_sub(1), leaves] {
            sim.now_ms = sim.now_ms.max(at * 1_000);
            sim.sweep();
            let held = sim.keys.iter().any(|k| k.number == 0);
            prop_assert_eq!(held, sim.now_s() < leaves);
        }
    }

    #[test]
    fn a_replacement_signs_at_once_and_overlaps_no_key_that_is_believed(
        schedule in schedules(),
        at_ms in 0_u64..1_000_000,
    ) {
        let mut sim = Sim::new(schedule.clone());
        sim.sweep();
        sim.commit();
        sim.now_ms += scaled(at_ms, &schedule) / 10;
        sim.sweep();
        sim.compromise();
        sim.check_swept();
        let active = sim.keys[sim.active().expect("a replacement signs at once")];
        prop_assert_eq!(active.facts.start, Start::Replacement);
        prop_assert_eq!(active.facts.nbf, sim.now_s());
    }
}

#[test]
fn the_simulation_notices_a_key_that_signs_without_its_lead() {
    let mut sim = Sim::new(Schedule::default());
    sim.announce(sim.now_s(), sim.now_s() + 100, Start::Led, 0);
    sim.commit();
    sim.sign(10);
    assert!(sim.tokens.is_empty(), "led keys wait");
    sim.now_ms += 300_000;
    assert!(sim.active().is_none(), "and their windows do not");
}

#[test]
fn states_are_told_apart() {
    let mut sim = Sim::new(Schedule::default());
    sim.sweep();
    let first = sim.keys[0].facts;
    let at = |s: u64| first.state(T0_MS + s * 1_000);
    assert_eq!(at(0), State::Active);
    assert_eq!(at(3_599), State::Active);
    assert_eq!(at(3_600), State::Retired);
    assert_eq!(at(3_629), State::Retired);
    assert_eq!(at(3_630), State::Gone);
    let led = KeyFacts { start: Start::Led, ..first };
    assert_eq!(led.state(T0_MS), State::Pending);
    let compromised = KeyFacts { compromised: true, ..first };
    assert_eq!(compromised.state(T0_MS), State::Gone);
    let names = [State::Pending, State::Active, State::Retired, State::Gone].map(State::as_str);
    assert_eq!(names, ["pending", "active", "retired", "gone"]);
}
