//! The keys of all realms: the lifecycle's decisions carried out.

use std::collections::BTreeMap;

use chancery_entry::{Announcement, Compromise, Entry, Narrowing, Start};
use chancery_policy::document::MAX_LIVE_KEYS;
use chancery_policy::{Policy, Realm, Rotation, Schedule, kubernetes};
use chancery_signer_api::{KeyStatus, Notice};
use chancery_token::{Algorithm, KeyId, PublicKey, RsaBits, SigningKey, jws};

use crate::clock::Now;
use crate::lifecycle::{self, Action, KeyFacts, LaneFacts, State};
use crate::log::{self, Log, MAX_WAITING_ENTRIES};
use crate::rsa_pool::RsaPool;

/// `typ` of access tokens (RFC 9068 section 2.1).
pub const TOKEN_TYP: &str = "at+jwt";

/// One key of a lane.
#[derive(Debug)]
pub struct Key {
    /// What the lifecycle knows.
    pub facts: KeyFacts,
    /// The private half, until it is destroyed; aws-lc overwrites it when it is dropped.
    private: Option<SigningKey>,
    /// The public half.
    pub public: PublicKey,
    /// The encoded JWS header of its tokens.
    pub header: String,
    /// Index of its announcement.
    pub announced_at: u64,
    /// How much earlier than it signs its window was announced to begin, in seconds.
    early_s: u64,
    /// The latest `iat` among its tokens, where somebody else's clock sets it: that may be ahead.
    last_iat: Option<u64>,
    /// Seconds for which the schedule wanted it to sign.
    scheduled_s: u64,
}

/// All keys of one realm and algorithm.
#[derive(Debug)]
pub struct Lane {
    realm: String,
    /// The realm's issuer.
    pub issuer: String,
    algorithm: Algorithm,
    rsa_bits: u16,
    schedule: Schedule,
    /// Its tokens are those of Kubernetes service accounts.
    kubernetes: bool,
    /// The keys, oldest first.
    pub keys: Vec<Key>,
    facts: LaneFacts,
    /// No longer in the policy: nothing new is announced.
    closed: bool,
    /// Whether a key could sign at the last sweep.
    signing: bool,
    /// A rotation was asked for, by a person or a shorter schedule, and is not announced yet.
    rotation_due: bool,
}

/// Names a lane.
pub type LaneId = (String, Algorithm);

/// All lanes.
#[derive(Debug)]
pub struct Keys {
    lanes: BTreeMap<LaneId, Lane>,
    rsa: RsaPool,
    changed: bool,
}

impl Key {
    /// The private half, while it exists.
    pub fn private(&self) -> Option<&SigningKey> {
        self.private.as_ref()
    }

    /// First second of the window as it is announced and published.
    pub fn announced_nbf(&self) -> u64 {
        self.facts.nbf.saturating_sub(self.early_s)
    }

    /// Takes note of a token that the key is about to sign.
    pub fn note_expiry(&mut self, exp: u64) {
        self.facts.last_exp = Some(self.facts.last_exp.map_or(exp, |last| last.max(exp)));
    }

    /// Takes note of an `iat` that another clock set.
    pub fn note_iat(&mut self, iat: u64) {
        self.last_iat = self.last_iat.max(Some(iat));
    }

    /// The first second at which its window may end: what it signed stays within (INVARIANT I3).
    fn least_end(&self) -> u64 {
        self.last_iat.map_or(0, |iat| iat.saturating_add(1))
    }

    fn destroy(&mut self) {
        self.private = None;
        self.facts.has_private = false;
    }
}

impl Lane {
    /// Position of the key that signs at `now`.
    pub fn active(&self, now: Now) -> Option<usize> {
        self.keys.iter().position(|k| k.facts.may_sign(now.ms))
    }

    /// Position of the key that signs at `now` what another clock dated `iat`: the active one, or the
    /// next where that clock is ahead and calls for it already. Each second is one key's: of the two
    /// the later one signs nothing before its own `nbf` (INVARIANT I3).
    pub fn signs_for(&self, iat: u64, now: Now) -> Option<usize> {
        let is_of = |key: &Key| (key.announced_nbf()..key.facts.signs_until).contains(&iat);
        let active = self.active(now).filter(|at| self.keys.get(*at).is_some_and(is_of));
        let ahead = || self.keys.iter().position(|k| k.facts.may_sign_for(iat, now.ms));
        active.or_else(ahead)
    }

    /// The realm's name.
    pub fn realm(&self) -> &str {
        &self.realm
    }

    /// Whether it signs for Kubernetes service accounts; that never changes.
    pub fn is_kubernetes(&self) -> bool {
        self.kubernetes
    }

    /// `typ` of its tokens.
    fn typ(&self) -> &'static str {
        if self.kubernetes { kubernetes::TYP } else { TOKEN_TYP }
    }

    /// How much earlier than a key signs its window is announced to begin: where somebody else's
    /// clock sets `iat`, what may be signed is a little older than the key.
    fn early_s(&self) -> u64 {
        self.facts.early_s
    }

    /// Seconds from now to where a key that is announced now takes over, if the announcement's commit
    /// takes no longer than the margin.
    fn ahead_s(&self, now_s: u64) -> u64 {
        let lead_s = self.facts.lead_s(now_s, &self.schedule);
        lead_s.saturating_add(self.schedule.margin_s()).saturating_add(self.early_s())
    }

    /// When a key is next expected to sign, for the client's patience.
    pub fn next_start(&self) -> Option<u64> {
        self.keys.iter().filter(|k| k.facts.has_private).map(|k| k.facts.nbf).min()
    }
}

impl Keys {
    /// No lanes yet.
    ///
    /// # Errors
    /// When the thread for RSA keys cannot be started.
    pub fn new() -> std::io::Result<Self> {
        Ok(Self { lanes: BTreeMap::new(), rsa: RsaPool::start()?, changed: false })
    }

    /// A lane of the policy in force.
    pub fn lane_mut(&mut self, realm: &str, algorithm: Algorithm) -> Option<&mut Lane> {
        self.lanes.get_mut(&(realm.to_owned(), algorithm))
    }

    /// All lanes.
    pub fn lanes(&self) -> impl Iterator<Item = &Lane> {
        self.lanes.values()
    }

    /// A key by lane and thumbprint.
    pub fn find(&self, lane: &LaneId, kid: &KeyId) -> Option<&Key> {
        self.lanes.get(lane)?.keys.iter().find(|k| k.public.kid() == *kid)
    }

    /// Whether the published part of the key set changed since it was last asked.
    pub fn take_changed(&mut self) -> bool {
        std::mem::take(&mut self.changed)
    }

    /// Brings the lanes in line with a policy: new lanes start with their first key at the next
    /// sweep, lanes that are gone from it retire their keys now.
    ///
    /// # Errors
    /// Fatal errors of the log.
    pub fn follow(&mut self, policy: &Policy, now: Now, log: &mut Log) -> Result<(), log::Error> {
        for lane in self.lanes.values_mut() {
            lane.closed = true;
        }
        for realm in policy.realms() {
            for algorithm in &realm.algorithms {
                self.lanes
                    .entry((realm.name.clone(), *algorithm))
                    .or_insert_with(|| Lane::new(realm, *algorithm))
                    .follow(realm, now.seconds());
            }
        }
        for lane in self.lanes.values_mut().filter(|l| l.closed) {
            self.changed = true;
            lane.narrow_all(now.seconds(), log)?;
        }
        Ok(())
    }

    /// Carries out what is due in every lane. With an untrusted clock keys are only destroyed.
    ///
    /// # Errors
    /// Fatal errors of the log.
    pub fn sweep(
        &mut self,
        now: Now,
        log: &mut Log,
        notices: &mut Vec<Notice>,
    ) -> Result<(), log::Error> {
        for lane in self.lanes.values_mut() {
            self.changed |= lane.sweep(now, log, &mut self.rsa, notices)?;
        }
        self.lanes.retain(|_, lane| !(lane.closed && lane.keys.is_empty()));
        Ok(())
    }

    /// The announcements up to `size` are committed: their keys are published from now on.
    pub fn committed(&mut self, size: u64, now: Now) {
        for key in self.lanes.values_mut().flat_map(|l| l.keys.iter_mut()) {
            if key.facts.committed_ms.is_none() && key.announced_at < size {
                key.facts.committed_ms = Some(now.ms);
                self.changed = true;
            }
        }
    }

    /// Starts a new key in every lane of a realm; answers when each will sign. An announced window
    /// never starts earlier than announced; the active one ends where the new one starts.
    ///
    /// # Errors
    /// Fatal errors of the log.
    pub fn rotate(
        &mut self,
        realm: &str,
        now: Now,
        log: &mut Log,
    ) -> Result<Vec<(String, u64)>, log::Error> {
        let mut starts = Vec::new();
        for lane in self.lanes.values_mut().filter(|l| l.realm == realm && !l.closed) {
            let from = lane.rotate(now.seconds(), log, &mut self.rsa)?;
            self.changed |= from.is_some();
            // A rotation that has to wait for its key is due, and comes no sooner than this.
            let soonest = now.seconds().saturating_add(lane.ahead_s(now.seconds()));
            starts.push((lane.algorithm.as_str().to_owned(), from.unwrap_or(soonest)));
        }
        Ok(starts)
    }

    /// Takes keys out of belief: each named key and, with a key of this signer, all Pending and
    /// Active keys of its realm (a thief of one has likely seen them all), Retired ones on request.
    ///
    /// # Errors
    /// Fatal errors of the log.
    pub fn compromise(
        &mut self,
        kid: [u8; 32],
        reason: &str,
        include_retired: bool,
        now: Now,
        log: &mut Log,
    ) -> Result<Vec<[u8; 32]>, log::Error> {
        let at = now.seconds();
        let named = KeyId::from_bytes(kid);
        log.append(&Entry::Compromise(Compromise { kid, at, reason: reason.to_owned() }))?;
        let is_named = |key: &Key| key.public.kid() == named;
        let realm =
            self.lanes.values().find(|l| l.keys.iter().any(is_named)).map(|l| l.realm.clone());
        let Some(realm) = realm else { return Ok(Vec::new()) };
        let mut gone = Vec::new();
        for lane in self.lanes.values_mut().filter(|l| l.realm == realm) {
            for key in lane.keys.iter_mut().filter(|k| !k.facts.compromised) {
                let retired = !key.facts.has_private;
                if retired && !include_retired && !is_named(key) {
                    continue;
                }
                if !is_named(key) {
                    let reason = format!("same realm as {named}");
                    let kid = *key.public.kid().as_bytes();
                    log.append(&Entry::Compromise(Compromise { kid, at, reason }))?;
                }
                key.facts.compromised = true;
                key.destroy();
                gone.push(*key.public.kid().as_bytes());
            }
            let without_key = lane.keys.iter().all(|k| !k.facts.has_private);
            lane.facts.replacement_due = without_key && lane.facts.last_end.is_some();
        }
        self.changed = true;
        Ok(gone)
    }

    /// Every key but the Gone ones.
    pub fn status(&self, now: Now) -> Vec<KeyStatus> {
        let mut all = Vec::new();
        for lane in self.lanes.values() {
            for key in &lane.keys {
                let state = key.facts.state(now.ms);
                if state == State::Gone {
                    continue;
                }
                all.push(KeyStatus {
                    realm: lane.realm.clone(),
                    algorithm: lane.algorithm.as_str().to_owned(),
                    kid: (*key.public.kid().as_bytes()).into(),
                    state: state.as_str().to_owned(),
                    nbf: key.facts.nbf,
                    signs_until: key.facts.signs_until,
                    exp: key.facts.leaves_at(now.seconds()),
                    announced_at: key.announced_at,
                    scheduled_s: key.scheduled_s,
                });
            }
        }
        all
    }
}

impl Lane {
    fn new(realm: &Realm, algorithm: Algorithm) -> Self {
        let is_kubernetes = realm.kubernetes.is_some();
        let early_s = if is_kubernetes { kubernetes::IAT_TOLERANCE_S } else { 0 };
        Self {
            realm: realm.name.clone(),
            issuer: realm.issuer.clone(),
            algorithm,
            rsa_bits: realm.rsa_bits,
            schedule: realm.schedule.clone(),
            kubernetes: is_kubernetes,
            keys: Vec::new(),
            facts: LaneFacts { early_s, ..LaneFacts::default() },
            closed: false,
            signing: false,
            rotation_due: false,
        }
    }

    fn follow(&mut self, realm: &Realm, now_s: u64) {
        self.closed = false;
        self.rsa_bits = realm.rsa_bits;
        if realm.schedule.key_set_max_age_s() < self.schedule.key_set_max_age_s() {
            let cached_until = now_s.saturating_add(self.schedule.key_set_max_age_s());
            self.facts.cached_until = self.facts.cached_until.max(cached_until);
        }
        self.schedule = realm.schedule.clone();
        // A key that the new schedule would have ended long ago is overdue by the new one.
        for key in self.keys.iter_mut().filter(|k| k.facts.has_private) {
            key.scheduled_s = key.scheduled_s.min(realm.schedule.rotate_every_s);
        }
        let longest =
            now_s.saturating_add(self.ahead_s(now_s)).saturating_add(self.schedule.window_s());
        self.rotation_due |= self.facts.last_end.is_some_and(|end| end > longest);
    }

    fn sweep(
        &mut self,
        now: Now,
        log: &mut Log,
        rsa: &mut RsaPool,
        notices: &mut Vec<Notice>,
    ) -> Result<bool, log::Error> {
        let facts: Vec<KeyFacts> = self.keys.iter().map(|k| k.facts).collect();
        let actions = lifecycle::sweep(now.ms, &facts, self.facts, &self.schedule);
        let mut changed = false;
        let mut forget = Vec::new();
        for action in actions {
            match action {
                Action::Destroy(position) => {
                    if let Some(key) = self.keys.get_mut(position) {
                        key.destroy();
                        changed = true;
                    }
                }
                Action::Forget(position) => forget.push(position),
                Action::Announce { nbf, signs_until, start, gap_s } => {
                    let may =
                        !self.closed && now.is_trusted() && log.waiting() < MAX_WAITING_ENTRIES;
                    // A window is only ever made after its predecessor's: the chain stops at the
                    // first that cannot be made now.
                    if !may || self.announce(nbf, signs_until, start, log, rsa)?.is_none() {
                        break;
                    }
                    if gap_s > 0 {
                        notices.push(self.gap_notice(gap_s, nbf));
                    }
                }
            }
        }
        for position in forget.into_iter().rev() {
            self.keys.remove(position);
            changed = true;
        }
        let may = !self.closed && now.is_trusted() && log.waiting() < MAX_WAITING_ENTRIES;
        self.rotation_due |= self.lags_ceiling(now);
        if self.rotation_due && may {
            changed |= self.rotate(now.seconds(), log, rsa)?.is_some();
        }
        self.note_silence(now, notices);
        Ok(changed)
    }

    /// Whatever the reason (a commit that came late, an RSA key that is not ready, the end of a
    /// manual window): a lane that stops signing says so, once.
    fn note_silence(&mut self, now: Now, notices: &mut Vec<Notice>) {
        let signing = self.active(now).is_some();
        if self.signing && !signing && !self.closed {
            let text = format!(
                "realm `{}` {}: no key may sign since {}; automatic rotation goes on by itself, \
                 manual rotation needs `chancery keys rotate`",
                self.realm,
                self.algorithm,
                now.seconds()
            );
            notices.push(Notice { code: "signing_stopped".into(), text });
        }
        self.signing = signing;
    }

    /// Whether the key that signs announced a lower ceiling than the policy grants, and no other is to
    /// follow: kube-apiserver asks once for the ceiling, and hears the lowest until the next key signs.
    fn lags_ceiling(&self, now: Now) -> bool {
        let pending = self.keys.iter().any(|k| k.facts.has_private && k.facts.nbf > now.seconds());
        let active = self.active(now).and_then(|at| self.keys.get(at));
        let raised = |key: &Key| key.facts.max_lifetime_s < self.schedule.max_lifetime_s;
        self.kubernetes && !pending && active.is_some_and(raised)
    }

    fn gap_notice(&self, gap_s: u64, nbf: u64) -> Notice {
        Notice {
            code: "rotation_gap".into(),
            text: format!(
                "realm `{}` {}: rotation came too late, nothing is signed for {gap_s} s, until {nbf}",
                self.realm, self.algorithm
            ),
        }
    }

    /// Makes and announces a key. `None`: no RSA key is ready yet, or the lane is full.
    fn announce(
        &mut self,
        nbf: u64,
        signs_until: u64,
        start: Start,
        log: &mut Log,
        rsa: &mut RsaPool,
    ) -> Result<Option<u64>, log::Error> {
        if self.keys.len() >= usize::try_from(MAX_LIVE_KEYS).unwrap_or(0) {
            return Ok(None);
        }
        let Some(private) = self.make_key(rsa)? else { return Ok(None) };
        let public = private.public().clone();
        let max_lifetime_s = self.schedule.max_lifetime_s;
        let announced_at = log.append(&Entry::Announcement(Announcement {
            realm: self.realm.clone(),
            issuer: self.issuer.clone(),
            jwk: announced_jwk(&public),
            kid: *public.kid().as_bytes(),
            algorithm: self.algorithm.as_str().to_owned(),
            nbf: nbf.saturating_sub(self.early_s()),
            signs_until,
            max_lifetime_s,
            start,
        }))?;
        self.keys.push(Key {
            facts: KeyFacts {
                nbf,
                signs_until,
                start,
                committed_ms: None,
                has_private: true,
                last_exp: None,
                max_lifetime_s,
                skew_s: self.schedule.skew_s,
                lead_s: self.schedule.publish_lead_s,
                compromised: false,
            },
            header: jws::encode_header(self.algorithm, self.typ(), &public.kid()),
            private: Some(private),
            public,
            announced_at,
            early_s: self.early_s(),
            last_iat: None,
            // The first window may have to reach further than the schedule, to its successor.
            scheduled_s: match self.schedule.rotation {
                Rotation::Automatic => signs_until.saturating_sub(nbf),
                Rotation::Manual => self.schedule.rotate_every_s,
            },
        });
        let end = self.facts.last_end.unwrap_or(0).max(signs_until);
        // A replacement starts the lane's chain of windows anew.
        let end = if start == Start::Replacement { signs_until } else { end };
        self.facts.last_end = Some(end);
        self.facts.replacement_due = false;
        Ok(Some(nbf))
    }

    fn make_key(&self, rsa: &mut RsaPool) -> Result<Option<SigningKey>, log::Error> {
        let bits = match self.rsa_bits {
            4096 => RsaBits::B4096,
            3072 => RsaBits::B3072,
            _ => RsaBits::B2048,
        };
        if self.algorithm.is_rsa() {
            return Ok(rsa.take(self.algorithm, bits));
        }
        let key = SigningKey::generate(self.algorithm, bits)
            .map_err(|e| log::Error::Identity(format!("{} key: {e}", self.algorithm)))?;
        Ok(Some(key))
    }

    fn rotate(
        &mut self,
        now_s: u64,
        log: &mut Log,
        rsa: &mut RsaPool,
    ) -> Result<Option<u64>, log::Error> {
        if self.facts.last_end.is_none() || self.facts.replacement_due {
            // The key that is due anyway is a fresh one, and signs as soon as it is made.
            self.rotation_due = false;
            return Ok(Some(now_s));
        }
        let led = now_s.saturating_add(self.ahead_s(now_s));
        let signed = self.keys.iter().map(Key::least_end).max().unwrap_or(0);
        let from = led.max(signed);
        let pending = self.keys.iter().filter(|k| k.facts.has_private && k.facts.nbf > now_s);
        let next = pending.map(|k| k.facts.nbf).min();
        if let Some(next) = next
            && next <= from
        {
            // A fresh key takes over as soon as one could that is announced now.
            self.rotation_due = false;
            return Ok(Some(next));
        }
        // Behind it goes on what is announced already, without a gap.
        let until = next.unwrap_or_else(|| from.saturating_add(self.schedule.window_s()));
        // No RSA key is ready, or the lane is full: every sweep tries again.
        self.rotation_due = true;
        let Some(start) = self.announce(from, until, Start::Led, log, rsa)? else {
            return Ok(None);
        };
        self.rotation_due = false;
        for key in &mut self.keys {
            if key.facts.nbf < from && key.facts.signs_until > from && key.facts.has_private {
                narrow(key, from, log)?;
            }
        }
        // A pending key further on keeps its window; the chain goes on behind the last one.
        self.keys.sort_by_key(|k| k.facts.nbf);
        if next.is_none() {
            self.facts.last_end = Some(until);
        }
        Ok(Some(start))
    }

    fn narrow_all(&mut self, now_s: u64, log: &mut Log) -> Result<(), log::Error> {
        // A token of this very second stays within the window (INVARIANT I3).
        let mut last = now_s.saturating_add(1);
        for key in &mut self.keys {
            let end = now_s.saturating_add(1).max(key.least_end());
            if key.facts.signs_until > end {
                narrow(key, end.max(key.facts.nbf), log)?;
            }
            last = last.max(end);
            key.destroy();
        }
        // Pending keys signed nothing, but for a clock that is ahead: no relying party needs them.
        self.keys.retain(|k| k.facts.nbf <= now_s || k.last_iat.is_some());
        // Should the realm come back, its chain of windows starts behind this moment.
        self.facts.last_end = self.facts.last_end.map(|end| end.min(last));
        Ok(())
    }
}

/// The required members of RFC 7638 section 3.2 and `alg`: without it an RSA key would not say what it
/// is for (INVARIANT I3).
pub(crate) fn announced_jwk(public: &PublicKey) -> String {
    let mut jwk = public.jwk();
    jwk.remove("use");
    jwk.remove("kid");
    serde_json::Value::Object(jwk).to_string()
}

fn narrow(key: &mut Key, signs_until: u64, log: &mut Log) -> Result<(), log::Error> {
    let kid = *key.public.kid().as_bytes();
    log.append(&Entry::Narrowing(Narrowing { kid, signs_until }))?;
    key.facts.signs_until = signs_until;
    Ok(())
}
