//! The keeper against a simulated clock and a publisher that rotates, fails and dawdles.

use proptest::prelude::*;

use super::*;

const PACE: Pace = Pace {
    min_age: 5_000,
    max_age: 3_600_000,
    default_age: 300_000,
    cool_down: 5_000,
    keep: 3_600_000,
    retry_at_most: 60_000,
};

fn keeper() -> Keeper {
    Keeper::new(PACE, 0)
}

/// A keeper whose first set, fresh for `lifetime_s`, came at once.
fn kept(lifetime_s: Option<u64>) -> Keeper {
    let mut keeper = keeper();
    assert_eq!(keeper.next(0), Next::Fetch);
    keeper.fetched(0, lifetime_s, 0);
    keeper
}

#[test]
fn the_first_set_is_fetched_at_once_and_shared() {
    let mut keeper = keeper();
    assert_eq!((keeper.state(0), keeper.believed_until()), (State::None, None));
    assert_eq!(keeper.ask(0), Ask::Fetch);
    assert_eq!(keeper.ask(10), Ask::Wait);
    assert_eq!(keeper.next(20), Next::Fetch, "the one that was asked for");
    keeper.fetched(30, None, 0);
    assert_eq!(keeper.state(30), State::Fresh);
    assert_eq!(keeper.ask(40), Ask::TooSoon);
}

#[test]
fn ages_are_those_of_the_publisher_within_bounds() {
    for (lifetime_s, age) in [
        (None, 300_000),
        (Some(0), 5_000),
        (Some(4), 5_000),
        (Some(150), 150_000),
        (Some(3_600), 3_600_000),
        (Some(86_400), 3_600_000),
        (Some(u64::MAX), 3_600_000),
    ] {
        assert_eq!(kept(lifetime_s).asked_and_age(), Some((0, age)), "{lifetime_s:?}");
    }
}

#[test]
fn an_age_counts_from_the_beginning_of_its_request() {
    let mut keeper = keeper();
    assert_eq!(keeper.next(1_000), Next::Fetch);
    keeper.fetched(9_000, Some(10), 0);
    assert_eq!(keeper.state(10_999), State::Fresh);
    assert_eq!(keeper.state(11_000), State::Stale);
}

#[test]
fn a_set_is_refreshed_ahead_and_spread() {
    for (random, due) in [(0, 80_000), (500, 75_000), (999, 70_100)] {
        let mut keeper = keeper();
        assert_eq!(keeper.next(0), Next::Fetch);
        keeper.fetched(0, Some(100), random);
        assert_eq!(keeper.next(due - 1), Next::At(due));
        assert_eq!(keeper.next(due), Next::Fetch);
    }
}

#[test]
fn the_shortest_ages_wait_for_the_cool_down() {
    let mut keeper = kept(Some(0));
    assert_eq!(keeper.next(4_000), Next::At(5_000));
    assert_eq!(keeper.next(5_000), Next::Fetch);
}

#[test]
fn unknown_keys_are_asked_for_once_in_a_cool_down() {
    let mut keeper = kept(Some(100));
    assert_eq!(keeper.ask(4_999), Ask::TooSoon);
    assert_eq!(keeper.would(5_000), Ask::Fetch);
    assert_eq!(keeper.ask(5_000), Ask::Fetch);
    assert_eq!(keeper.ask(5_001), Ask::Wait);
    keeper.failed(5_100, 0);
    assert_eq!(keeper.ask(9_999), Ask::TooSoon);
    assert_eq!(keeper.ask(10_000), Ask::Fetch);
}

#[test]
fn failures_are_repeated_ever_later_and_the_last_good_set_is_kept() {
    let mut keeper = kept(Some(100));
    let mut begun = Vec::new();
    let mut now = 0;
    while begun.len() < 7 {
        match keeper.next(now) {
            Next::At(time) => now = time,
            Next::Fetch => {
                begun.push(now);
                keeper.failed(now, 0);
            }
        }
    }
    let gaps: Vec<u64> = begun.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert_eq!(gaps, [5_000, 10_000, 20_000, 40_000, 60_000, 60_000]);
    assert_eq!(keeper.failures(), 7);
    assert_eq!(keeper.believed_until(), Some(3_700_000));
    assert_eq!(keeper.state(99_999), State::Fresh);
    assert_eq!(keeper.state(3_699_999), State::Stale);
    assert_eq!(keeper.state(3_700_000), State::Expired);

    assert_eq!(keeper.next(4_000_000), Next::Fetch);
    keeper.fetched(4_000_100, Some(100), 0);
    assert_eq!((keeper.state(4_000_100), keeper.failures()), (State::Fresh, 0));
}

#[test]
fn extreme_numbers_do_not_overflow() {
    let most = u64::MAX;
    let pace = Pace {
        min_age: most,
        max_age: most,
        default_age: most,
        cool_down: most,
        keep: most,
        retry_at_most: most,
    };
    let mut keeper = Keeper::new(pace, most);
    assert_eq!(keeper.next(most), Next::Fetch);
    keeper.fetched(most, Some(most), 999);
    assert_eq!(keeper.ask(most), Ask::Fetch);
    for _ in 0..100 {
        keeper.failed(most, 999);
    }
    assert_eq!(keeper.failures(), 100);
}

/// What happens in a simulated run.
#[derive(Clone, Debug)]
enum Event {
    /// Time passes.
    Wait(u64),
    /// Tokens with unknown keys come, this many.
    Unknown(u8),
    /// The publisher takes a key back.
    Revoke,
    /// The publisher answers from now on, or does not.
    Answers(bool),
    /// How long a fetch takes from now on.
    Takes(u64),
    /// What the publisher says about freshness from now on.
    Says(Option<u64>),
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let event = prop_oneof![
        6 => (0_u64..200_000).prop_map(Event::Wait),
        6 => (0_u64..3_000).prop_map(Event::Wait),
        6 => any::<u8>().prop_map(Event::Unknown),
        3 => Just(Event::Revoke),
        1 => any::<bool>().prop_map(Event::Answers),
        1 => (0..=TIMEOUT).prop_map(Event::Takes),
        1 => proptest::option::of(0_u64..1_000).prop_map(Event::Says),
    ];
    proptest::collection::vec(event, 1..120)
}

const TIMEOUT: u64 = 10_000;

/// A key set as the publisher had it at a moment: its version, and when it was served.
#[derive(Clone, Copy)]
struct Snapshot {
    version: u64,
    asked: u64,
}

/// A publisher, a keeper and the task between them. It plays the task of `issuer::keep` in steps of
/// simulated time, and checks what must always hold in each.
struct Run {
    keeper: Keeper,
    now: u64,
    /// When each version of the set was replaced; the last one is the current.
    replaced: Vec<u64>,
    answers: bool,
    takes: u64,
    says: Option<u64>,
    /// The longest age that was ever said.
    oldest: u64,
    running: Option<(Snapshot, bool, u64)>,
    held: Option<Snapshot>,
    begun: Vec<u64>,
    random: u64,
    /// Since when every fetch has succeeded.
    answered_since: u64,
}

impl Run {
    fn new(random: u64) -> Self {
        Self {
            keeper: keeper(),
            now: 0,
            replaced: Vec::new(),
            answers: true,
            takes: 100,
            says: Some(150),
            oldest: 1_000_000,
            running: None,
            held: None,
            begun: Vec::new(),
            random,
            answered_since: 0,
        }
    }

    fn version(&self) -> u64 {
        self.replaced.len() as u64
    }

    /// Lets the task act at this moment.
    fn act(&mut self) {
        if let Some((snapshot, succeeds, until)) = self.running
            && self.now >= until
        {
            self.running = None;
            if succeeds {
                self.keeper.fetched(self.now, self.says, self.random);
                self.held = Some(snapshot);
            } else {
                self.keeper.failed(self.now, self.random);
                self.answered_since = self.now;
            }
        }
        if self.running.is_none() && self.keeper.next(self.now) == Next::Fetch {
            self.begun.push(self.now);
            // The worst that can be: the answer shows the mind of the moment it was asked.
            let snapshot = Snapshot { version: self.version(), asked: self.now };
            self.running = Some((snapshot, self.answers, self.now + self.takes));
        }
        self.check();
    }

    /// The next moment at which the task acts by itself.
    fn next_moment(&mut self) -> u64 {
        match self.running {
            Some((_, _, until)) => until,
            None => match self.keeper.clone().next(self.now) {
                Next::At(time) => time,
                Next::Fetch => self.now,
            },
        }
    }

    fn wait(&mut self, ms: u64) {
        let end = self.now + ms;
        loop {
            let next = self.next_moment().max(self.now + 1);
            if next > end {
                break;
            }
            self.now = next;
            self.act();
        }
        self.now = end;
        self.act();
    }

    fn check(&self) {
        for pair in self.begun.windows(2) {
            assert!(pair[1] - pair[0] >= PACE.cool_down, "fetches at {pair:?}");
        }
        let Some(held) = self.held else { return };
        let believed = matches!(self.keeper.state(self.now), State::Fresh | State::Stale);
        let age = self.now - held.asked;
        assert!(!believed || age <= PACE.max_age + PACE.keep, "a set of {age} ms is believed");
        // Whatever was replaced longer ago than the bound is not believed any more.
        let answered_for = self.now - self.answered_since.min(self.now);
        let bound = self.oldest + TIMEOUT;
        let late = self.replaced.get(held.version as usize).map_or(0, |at| self.now - at);
        if believed && self.answers && answered_for > bound + TIMEOUT {
            assert!(late <= bound, "a key that was taken back {late} ms ago is believed");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn what_must_always_hold_holds(events in events(), random in 0..THOUSAND) {
        let mut run = Run::new(random);
        run.act();
        for event in events {
            match event {
                Event::Wait(ms) => run.wait(ms),
                Event::Unknown(count) => {
                    for _ in 0..count {
                        let running = run.running.is_some();
                        let ask = run.keeper.ask(run.now);
                        prop_assert!(!running || ask == Ask::Wait, "one fetch at a time");
                        run.act();
                    }
                }
                Event::Revoke => run.replaced.push(run.now),
                Event::Answers(answers) => run.answers = answers,
                Event::Takes(ms) => run.takes = ms,
                Event::Says(says) => run.says = says,
            }
        }
        // However it went, time heals: half an hour of answers, and the set is the current one.
        run.answers = true;
        run.wait(PACE.default_age + PACE.max_age + PACE.retry_at_most * 2 + TIMEOUT * 3);
        prop_assert_eq!(run.held.map(|held| held.version), Some(run.version()));
        prop_assert!(run.keeper.state(run.now) != State::Expired);
    }

    /// The bound of the time to distrust for one publisher that always answers: age + fetch time.
    #[test]
    fn a_key_that_is_taken_back_is_gone_within_the_stated_time(
        lifetime_s in 0_u64..4_000, takes in 0..TIMEOUT, revoked in 0_u64..20_000_000,
        random in 0..THOUSAND, unknown in proptest::collection::vec(0_u64..1_000_000, 0..20)) {
        let mut run = Run::new(random);
        run.says = Some(lifetime_s);
        run.takes = takes;
        run.oldest = PACE.max_age;
        run.act();
        let age = (lifetime_s * 1_000).clamp(PACE.min_age, PACE.max_age);
        for wait in unknown {
            run.wait(wait);
            run.keeper.ask(run.now);
            run.act();
        }
        run.wait(revoked);
        run.replaced.push(run.now);
        let taken_back = run.now;
        run.wait(age + TIMEOUT);
        let held = run.held.map(|held| held.version);
        prop_assert_eq!(held, Some(1), "taken back at {}, now {}", taken_back, run.now);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    /// An unknown key every 30 ms for ten minutes causes no more fetches than the cool-down allows.
    #[test]
    fn a_storm_of_unknown_keys_moves_nothing(random in 0..THOUSAND, takes in 0..TIMEOUT) {
        let mut run = Run::new(random);
        run.takes = takes;
        run.act();
        for _ in 0..20_000 {
            run.wait(30);
            run.keeper.ask(run.now);
            run.act();
        }
        let most = run.now / PACE.cool_down + 1;
        prop_assert!(run.begun.len() as u64 <= most, "{} fetches in {} ms", run.begun.len(), run.now);
    }
}
