//! Rotation together with a relying party that caches the key set for its `max-age`, enumerated
//! exhaustively: every interleaving of sweeps, commits, tokens and fetches, second by second, for
//! small schedules. No token that was issued correctly is ever refused because of rotation.

use std::collections::HashSet;

use super::*;

/// What the model may do wrong, to show that it can fail.
#[derive(Clone, Copy)]
struct World {
    /// For how many seconds the relying party may use what it fetched.
    max_age_s: u64,
    /// The longest delay of a commit after the announcement.
    commit_within_s: u64,
    /// Whether keys wait for their lead.
    leads: bool,
    /// Whether retired keys stay until their last token has expired.
    retains: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct ModelKey {
    number: usize,
    nbf: u64,
    signs_until: u64,
    led: bool,
    committed_s: Option<u64>,
    last_exp: Option<u64>,
}

/// One state of the whole: as small as what distinguishes the future.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Whole {
    now_s: u64,
    keys: Vec<ModelKey>,
    last_end: Option<u64>,
    announced: usize,
    /// When the relying party fetched, and the keys that it saw.
    cache: Option<(u64, Vec<usize>)>,
    /// Live tokens: key and expiry, without repetition.
    tokens: Vec<(usize, u64)>,
    /// Second of the oldest announcement that is not committed.
    waiting_since: Option<u64>,
}

#[derive(Debug, PartialEq)]
struct Refused {
    at: u64,
    key: usize,
}

struct Model {
    schedule: Schedule,
    world: World,
    seen: HashSet<Whole>,
    /// How many signed tokens were validated with a cache, over all paths.
    validated: usize,
    rotations: usize,
}

impl Model {
    fn new(schedule: &Schedule, world: World) -> Self {
        let schedule = schedule.clone();
        Self { schedule, world, seen: HashSet::new(), validated: 0, rotations: 0 }
    }

    /// Explores everything until `horizon_s`; the first refusal of a good token ends it.
    fn explore(&mut self, horizon_s: u64) -> Result<(), Refused> {
        let start = Whole {
            now_s: T0_MS / 1_000,
            keys: Vec::new(),
            last_end: None,
            announced: 0,
            cache: None,
            tokens: Vec::new(),
            waiting_since: None,
        };
        let until = start.now_s + horizon_s;
        // The key set is served from the first commit on. That a first key is not known before is
        // no rotation: the log says `first` then.
        let mut open = vec![committed(self.swept(start))];
        while let Some(whole) = open.pop() {
            self.validate(&whole)?;
            if whole.now_s >= until || !self.seen.insert(whole.clone()) {
                continue;
            }
            self.rotations = self.rotations.max(whole.announced);
            open.extend(self.successors(&whole));
        }
        Ok(())
    }

    fn successors(&self, whole: &Whole) -> Vec<Whole> {
        let mut next = vec![self.fetched(whole.clone())];
        if let Some(signed) = self.signed(whole) {
            next.push(signed);
        }
        if whole.waiting_since.is_some() {
            next.push(committed(whole.clone()));
        }
        // Time passes only while the service is within its bound.
        let in_time = whole
            .waiting_since
            .is_none_or(|since| whole.now_s < since + self.world.commit_within_s);
        if in_time {
            next.push(self.swept(Whole { now_s: whole.now_s + 1, ..whole.clone() }));
        }
        next
    }

    fn facts(&self, key: &ModelKey) -> KeyFacts {
        KeyFacts {
            nbf: key.nbf,
            signs_until: key.signs_until,
            start: if key.led && self.world.leads { Start::Led } else { Start::First },
            committed_ms: key.committed_s.map(|s| s * 1_000),
            has_private: true,
            last_exp: key.last_exp.filter(|_| self.world.retains),
            max_lifetime_s: self.schedule.max_lifetime_s,
            skew_s: self.schedule.skew_s,
            lead_s: self.schedule.publish_lead_s,
            compromised: false,
        }
    }

    fn swept(&self, mut whole: Whole) -> Whole {
        let facts: Vec<_> = whole.keys.iter().map(|k| self.facts(k)).collect();
        let lane = LaneFacts { last_end: whole.last_end, ..LaneFacts::default() };
        let mut gone = Vec::new();
        for action in sweep(whole.now_s * 1_000, &facts, lane, &self.schedule) {
            match action {
                Action::Destroy(_) => {}
                Action::Forget(at) => gone.push(at),
                Action::Announce { nbf, signs_until, start, .. } => {
                    whole.keys.push(ModelKey {
                        number: whole.announced,
                        nbf,
                        signs_until,
                        led: start == Start::Led,
                        committed_s: None,
                        last_exp: None,
                    });
                    whole.announced += 1;
                    whole.last_end = Some(signs_until);
                    whole.waiting_since.get_or_insert(whole.now_s);
                }
            }
        }
        for at in gone.into_iter().rev() {
            whole.keys.remove(at);
        }
        let skew_s = self.schedule.skew_s;
        whole.tokens.retain(|(_, exp)| whole.now_s < exp + skew_s);
        let max_age_s = self.world.max_age_s;
        // A cache that is too old is thrown away: the relying party fetches when it needs one.
        whole.cache = whole.cache.filter(|(at, _)| whole.now_s <= at + max_age_s);
        whole
    }

    fn published(&self, whole: &Whole) -> Vec<usize> {
        let live = |k: &&ModelKey| {
            k.committed_s.is_some() && whole.now_s < self.facts(k).leaves_at(whole.now_s)
        };
        whole.keys.iter().filter(live).map(|k| k.number).collect()
    }

    fn fetched(&self, mut whole: Whole) -> Whole {
        whole.cache = Some((whole.now_s, self.published(&whole)));
        whole
    }

    /// A token: released at once, with everything that waits committed before it (INVARIANT I2).
    fn signed(&self, whole: &Whole) -> Option<Whole> {
        let at = whole.keys.iter().position(|k| self.facts(k).may_sign(whole.now_s * 1_000))?;
        let mut whole = committed(whole.clone());
        let exp = whole.now_s + self.schedule.max_lifetime_s;
        whole.keys[at].last_exp = Some(exp);
        let token = (whole.keys[at].number, exp);
        if !whole.tokens.contains(&token) {
            whole.tokens.push(token);
            whole.tokens.sort_unstable();
        }
        Some(whole)
    }

    /// Every live token, with what the relying party holds, or with what it would fetch now.
    fn validate(&mut self, whole: &Whole) -> Result<(), Refused> {
        let fresh = self.published(whole);
        let known = whole.cache.as_ref().map_or(&fresh, |(_, known)| known);
        for (key, _) in &whole.tokens {
            if !known.contains(key) {
                return Err(Refused { at: whole.now_s, key: *key });
            }
            self.validated += 1;
        }
        Ok(())
    }
}

fn committed(mut whole: Whole) -> Whole {
    for key in whole.keys.iter_mut().filter(|k| k.committed_s.is_none()) {
        key.committed_s = Some(whole.now_s);
    }
    whole.waiting_since = None;
    whole
}

fn small_schedules() -> Vec<Schedule> {
    let mut all = Vec::new();
    for rotate_every_s in [3, 5] {
        for publish_lead_s in [1, 2, 4, 6] {
            for max_lifetime_s in [1, 4] {
                for skew_s in [0, 1] {
                    all.push(Schedule {
                        rotation: Rotation::Automatic,
                        rotate_every_s,
                        publish_lead_s,
                        max_lifetime_s,
                        skew_s,
                        manual_window_s: 1,
                    });
                }
            }
        }
    }
    all
}

fn honest(schedule: &Schedule) -> World {
    World {
        max_age_s: schedule.key_set_max_age_s(),
        commit_within_s: schedule.margin_s(),
        leads: true,
        retains: true,
    }
}

/// Long enough for three rotations after the first key, and for what they leave behind.
fn horizon(schedule: &Schedule) -> u64 {
    3 * schedule.rotate_every_s + schedule.publish_lead_s + schedule.margin_s() + 2
}

#[test]
fn no_good_token_is_ever_refused_because_of_rotation() {
    let (mut validated, mut states) = (0, 0);
    for schedule in small_schedules() {
        assert_eq!(realm(schedule.clone()).check(), Ok(()));
        let mut model = Model::new(&schedule, honest(&schedule));
        assert_eq!(model.explore(horizon(&schedule)), Ok(()), "{schedule:?}");
        assert!(model.rotations >= 4, "only {} keys", model.rotations);
        validated += model.validated;
        states += model.seen.len();
    }
    assert!(states > 20_000 && validated > 50_000, "only {states} states, {validated} validations");
}

#[test]
fn a_cache_younger_than_the_lead_serves_and_one_as_old_does_not() {
    let schedule = Schedule { publish_lead_s: 4, ..small_schedules().remove(0) };
    let explore = |max_age_s| {
        let world = World { max_age_s, ..honest(&schedule) };
        Model::new(&schedule, world).explore(horizon(&schedule))
    };
    assert_eq!(explore(schedule.publish_lead_s - 1), Ok(()));
    assert!(explore(schedule.publish_lead_s).is_err(), "the model must find this");
}

#[test]
fn the_model_finds_a_signer_that_does_not_wait_for_its_lead() {
    let schedule = Schedule { publish_lead_s: 4, ..small_schedules().remove(0) };
    let world = World { leads: false, commit_within_s: 6, ..honest(&schedule) };
    assert!(Model::new(&schedule, world).explore(horizon(&schedule)).is_err());
}

#[test]
fn the_model_finds_a_key_set_that_drops_keys_too_early() {
    let schedule = Schedule { max_lifetime_s: 4, ..small_schedules().remove(0) };
    let world = World { retains: false, ..honest(&schedule) };
    assert!(Model::new(&schedule, world).explore(horizon(&schedule)).is_err());
}

#[test]
fn a_commit_that_is_late_stops_signing_and_refuses_nobody() {
    let schedule = Schedule { publish_lead_s: 2, ..small_schedules().remove(0) };
    let world = World { commit_within_s: 6, ..honest(&schedule) };
    assert_eq!(Model::new(&schedule, world).explore(horizon(&schedule)), Ok(()));
}
