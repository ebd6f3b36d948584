//! Every binding of the validation at once, against a service whose keys change every two seconds: no
//! good token is rejected, and none of a compromised key is accepted beyond the stated time.
//!
//! The Rust front runs always, for twenty seconds. `cargo xtask bindings` sets the commands of the other
//! bindings' watchers and two minutes. A watcher reads a token a line and validates it then and
//! again until it expires; `!TIME TOKEN` is one that must be rejected from that time on.

use std::collections::{HashMap, VecDeque};
use std::io::Write as _;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use chancery_relying_party::{RelyingParty, ValidatorConfig};
use chancery_testkit::{Lab, TestClient, now, wait_until};

use super::{AUDIENCE, CHANCERY, client, configure};

/// Keys sign for two seconds. A front with default bounds fetches a key set at most every five
/// seconds, so a key must be in the set for longer than that before it signs.
const SCHEDULE: &str = "rotate_every_s = 2\npublish_lead_s = 8\nmax_lifetime_s = 40\nskew_s = 2";
const ALONE_SECONDS: u64 = 20;
const FIRST_KEY_S: u64 = 11;
/// Between two tokens.
const PAUSE: Duration = Duration::from_millis(100);
/// Between two rounds over the tokens that are alive.
const ROUND: Duration = Duration::from_millis(50);
/// After the time by which a key must be distrusted, to see that it is.
const AFTERWARDS: Duration = Duration::from_secs(5);
/// A token this close to its end is not judged any more.
const MARGIN_S: u64 = 2;
/// The watchers judge until the last token has expired.
const ENDS_WITHIN: Duration = Duration::from_secs(120);

/// The watcher of another binding.
struct Watcher {
    name: &'static str,
    process: Child,
}

impl Watcher {
    fn start(name: &'static str, variable: &str, issuer: &str, seconds: u64) -> Option<Self> {
        let Ok(command) = std::env::var(variable) else {
            eprintln!("skipped: the {name} binding; `cargo xtask bindings` runs it");
            return None;
        };
        let mut words = command.split('\n');
        let process = Command::new(words.next().unwrap())
            .args(words)
            .args([issuer, AUDIENCE, &seconds.to_string(), "-"])
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        Some(Self { name, process })
    }

    fn tell(&mut self, line: &str) {
        let told = writeln!(self.process.stdin.as_mut().unwrap(), "{line}");
        assert!(told.is_ok(), "the {} binding has ended: {told:?}", self.name);
    }

    fn finish(mut self) {
        drop(self.process.stdin.take());
        let mut status = None;
        wait_until("a watcher ends", ENDS_WITHIN, || {
            status = self.process.try_wait().unwrap();
            status.is_some()
        });
        assert!(status.unwrap().success(), "the {} binding judged wrongly: {status:?}", self.name);
    }
}

/// What the Rust front saw of one token.
struct Seen {
    token: String,
    exp: u64,
    last_accepted: Option<Instant>,
}

/// The Rust front, judging all living tokens again and again.
struct Front {
    party: RelyingParty,
    _runtime: tokio::runtime::Runtime,
    tokens: Arc<Mutex<VecDeque<Seen>>>,
    wrong: Arc<Mutex<Vec<String>>>,
    bad_from: Arc<Mutex<HashMap<String, Instant>>>,
    ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<u64>>,
}

impl Front {
    fn start(issuer: &str) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let config = ValidatorConfig::new(issuer, AUDIENCE);
        let builder = RelyingParty::builder(config).runtime(runtime.handle().clone());
        let party = builder.build().unwrap();
        runtime.block_on(party.ready()).unwrap();
        let mut front = Self {
            party,
            _runtime: runtime,
            tokens: Arc::default(),
            wrong: Arc::default(),
            bad_from: Arc::default(),
            ended: Arc::default(),
            thread: None,
        };
        front.thread = Some(front.spawn());
        front
    }

    fn spawn(&self) -> JoinHandle<u64> {
        let (party, handle) = (self.party.clone(), self._runtime.handle().clone());
        let (tokens, wrong) = (Arc::clone(&self.tokens), Arc::clone(&self.wrong));
        let (bad_from, ended) = (Arc::clone(&self.bad_from), Arc::clone(&self.ended));
        std::thread::spawn(move || {
            let mut count = 0;
            while !ended.load(Ordering::Relaxed) {
                let mut tokens = tokens.lock().unwrap();
                tokens.retain(|seen| seen.exp > now() + MARGIN_S);
                for seen in tokens.iter_mut() {
                    let begun = Instant::now();
                    let verdict = handle.block_on(party.validate(&seen.token));
                    count += 1;
                    let bad_from = bad_from.lock().unwrap().get(&seen.token).copied();
                    let is_wrong = match (&verdict, bad_from) {
                        (Ok(_), Some(from)) => begun >= from,
                        (Err(_), None) => true,
                        _ => false,
                    };
                    if verdict.is_ok() {
                        seen.last_accepted = Some(begun);
                    }
                    if is_wrong {
                        wrong.lock().unwrap().push(format!("{verdict:?}: {}", seen.token));
                    }
                }
                drop(tokens);
                std::thread::sleep(ROUND);
            }
            count
        })
    }

    fn hear(&self, token: &str) {
        let verdict = self._runtime.block_on(self.party.validate(token));
        let accepted = verdict.map_err(|rejection| format!("{rejection}: {token}")).unwrap();
        let exp = accepted.token.claims().exp;
        let seen = Seen { token: token.to_owned(), exp, last_accepted: None };
        self.tokens.lock().unwrap().push_back(seen);
    }

    /// Judgements, and what was wrong.
    fn finish(mut self) -> (u64, Vec<String>) {
        self.ended.store(true, Ordering::Relaxed);
        let count = self.thread.take().unwrap().join().unwrap();
        (count, std::mem::take(&mut *self.wrong.lock().unwrap()))
    }
}

fn kid(token: &str) -> String {
    let header = chancery_token::b64::decode(token.split('.').next().unwrap()).unwrap();
    let header: serde_json::Value = serde_json::from_slice(&header).unwrap();
    header["kid"].as_str().unwrap().to_owned()
}

#[test]
fn every_binding_follows_rotation_and_distrusts_a_compromised_key() {
    let seconds = std::env::var("CHANCERY_WATCH_SECONDS");
    let seconds = seconds.map_or(ALONE_SECONDS, |text| text.parse().unwrap());
    let mut lab = Lab::new(CHANCERY);
    let client = client("c");
    configure(&mut lab, "", SCHEDULE, &[&client]);
    lab.start();
    let issuer = lab.issuer("r");
    let most = seconds + 120;
    let mut watchers: Vec<Watcher> =
        [("Python", "CHANCERY_WATCH_PYTHON"), ("Node", "CHANCERY_WATCH_NODE")]
            .into_iter()
            .filter_map(|(name, variable)| Watcher::start(name, variable, &issuer, most))
            .collect();
    let front = Front::start(&issuer);

    // Rotation.
    let mut issued: Vec<String> = Vec::new();
    let end = Instant::now() + Duration::from_secs(seconds);
    while Instant::now() < end {
        issued.push(tell(&lab, &client, &front, &mut watchers));
        std::thread::sleep(PAUSE);
    }
    let mut kids: Vec<String> = issued.iter().map(|token| kid(token)).collect();
    kids.dedup();
    // The first key signs until a successor that was announced with it may follow.
    let least = seconds.saturating_sub(FIRST_KEY_S) / 3;
    assert!(kids.len() as u64 >= least, "{} keys in {seconds} s", kids.len());

    // A compromise of the key that signs.
    let stolen = kids.last().unwrap().clone();
    let status = front.party.status();
    let within = status.issuers.first().unwrap().distrusts_within_ms.unwrap();
    let done = lab.run(&["keys", "compromise", &stolen, "--reason", "a test"]);
    assert!(done.status.success(), "{done:?}");
    let (declared, declared_s) = (Instant::now(), now());
    let bad: Vec<&String> = issued.iter().filter(|token| kid(token) == stolen).collect();
    assert!(!bad.is_empty());
    let from = declared + Duration::from_millis(within);
    for token in &bad {
        front.bad_from.lock().unwrap().insert((*token).clone(), from);
        // The others' clocks show whole seconds to us; a second more makes up for that.
        let line = format!("!{} {token}", declared_s + within.div_ceil(1000) + 1);
        watchers.iter_mut().for_each(|watcher| watcher.tell(&line));
    }
    std::thread::sleep(Duration::from_millis(within) + AFTERWARDS);
    let last = front
        .tokens
        .lock()
        .unwrap()
        .iter()
        .filter(|seen| bad.contains(&&seen.token))
        .filter_map(|seen| seen.last_accepted)
        .max();
    let distrusted = last.map_or(0, |last| last.saturating_duration_since(declared).as_millis());

    // The fresh key's tokens are good for everybody by now.
    for _ in 0..10 {
        tell(&lab, &client, &front, &mut watchers);
    }
    watchers.into_iter().for_each(Watcher::finish);
    let (count, wrong) = front.finish();
    println!(
        "{} tokens of {} keys, {count} judgements by the Rust front; a compromised key was accepted \
         for {distrusted} ms, stated are {within} ms",
        issued.len(),
        kids.len()
    );
    assert_eq!(wrong, Vec::<String>::new());
}

/// Issues a token and shows it to everybody.
fn tell(lab: &Lab, client: &TestClient, front: &Front, watchers: &mut [Watcher]) -> String {
    let token = lab.token(client, "r", AUDIENCE);
    front.hear(&token);
    watchers.iter_mut().for_each(|watcher| watcher.tell(&token));
    token
}
