//! A host for tests: it drives [`Signer`] through its library surface with a clock of its own, keeps
//! what it is given, and checks everything that comes out the way a stranger would.

use std::collections::BTreeMap;

use chancery_entry::{Entry, TokenEntry};
use chancery_policy::document::{ClientDocument, GrantDocument};
use chancery_policy::{PolicyDocument, RealmDocument, Schedule};
use chancery_signer::clock::{Clock, Reading};
use chancery_signer::signer::Signer;
use chancery_signer_api::*;
use chancery_tlog::note::VerifierKey;
use chancery_tlog::{Checkpoint, Frontier, Hash, LogId, leaf_hash};
use chancery_token::client::ClientKey;
use chancery_token::jwks::KeySet;
use chancery_token::{Algorithm, PublicKey, jws};
use serde_json::{Map, Value, json};

pub const START_MS: u64 = 1_800_000_000_000;
pub const ISSUER: &str = "https://issuer.example/consumers";
pub const AUDIENCE: &str = "https://api.example";
pub const REQUEST_TYP: &str = "chancery-request+jwt";

/// Both clocks, as the test sets them.
#[derive(Debug)]
pub struct SetClock(pub Reading);

impl Clock for SetClock {
    fn read(&mut self) -> Reading {
        self.0
    }
}

/// A client and its key.
pub struct Client {
    pub id: String,
    pub key: ClientKey,
    pub next: u64,
}

impl Client {
    pub fn new(id: &str) -> Self {
        Self { id: id.into(), key: ClientKey::generate(Algorithm::Es256).unwrap(), next: 0 }
    }

    pub fn document(&self) -> ClientDocument {
        ClientDocument {
            id: self.id.clone(),
            keys: vec![self.key.signing_key().public().jwk()],
            grants: vec![GrantDocument {
                name: "api".into(),
                audiences: vec![AUDIENCE.into(), "https://b.example".into()],
                subjects: vec![self.id.clone(), "user:*".into()],
                scopes: vec!["read".into(), "write".into()],
                claims: vec!["tier".into()],
                max_lifetime_s: None,
                algorithms: None,
                require_cnf: false,
                max_audiences: 1,
            }],
            max_tokens_per_s: None,
            replay_capacity: 100_000,
            accept_eddsa: false,
        }
    }

    /// The members of a proof that is good now, with a fresh `jti`.
    pub fn proof(&mut self, now_s: u64) -> Value {
        self.next += 1;
        json!({
            "iss": self.id, "sub": self.id, "aud": ISSUER,
            "iat": now_s, "exp": now_s + 60, "jti": format!("{}-{}", self.id, self.next),
        })
    }

    /// The same with a `jti` that is never used.
    pub fn proof_with(&self, now_s: u64) -> Value {
        json!({
            "iss": self.id, "sub": self.id, "aud": ISSUER,
            "iat": now_s, "exp": now_s + 60, "jti": "never used",
        })
    }

    pub fn sign(&self, typ: &str, payload: &Value) -> String {
        let key = self.key.signing_key();
        let public = key.public();
        let input = jws::signing_input(
            public.algorithm(),
            typ,
            &public.kid(),
            payload.to_string().as_bytes(),
        );
        let signature = key.sign(input.as_bytes()).unwrap();
        jws::assemble(input, &signature)
    }
}

pub fn assertion_of(jws: String) -> Proof {
    Proof::Assertion {
        jws,
        audiences: vec![AUDIENCE.into()],
        scope: Some("read".into()),
        lifetime_s: Some(300),
        subject: None,
        algorithm: None,
        client_id: None,
    }
}

pub fn request(proof: Proof) -> IssueRequest {
    IssueRequest { realm: "consumers".into(), context: b"ctx".to_vec().into(), proof }
}

pub fn policy(version: u64, algorithms: &[Algorithm], clients: &[&Client]) -> PolicyDocument {
    PolicyDocument {
        version,
        log_prefix: "issuer.example/log".into(),
        realms: vec![RealmDocument {
            name: "consumers".into(),
            issuer: ISSUER.into(),
            algorithms: algorithms.to_vec(),
            rsa_bits: 2048,
            kubernetes: None,
            schedule: Schedule::default(),
            clients: clients.iter().map(|c| c.document()).collect(),
        }],
        witnessed: None,
        protections: Vec::new(),
    }
}

/// The service of these tests: honest where it is not told otherwise.
pub struct Host {
    pub signer: Signer<SetClock>,
    pub client: Client,
    pub policy: PolicyDocument,
    pub identity: [u8; 32],
    /// Entries under the last committed checkpoint.
    pub log: Vec<Vec<u8>>,
    /// Batches that were answered and not committed, oldest first.
    pub open: Vec<Prepared>,
    pub keys_jwt: Option<String>,
    pub last_seq: u64,
    pub notices: Vec<Notice>,
}

impl Host {
    /// A signer with a policy for ES256 and its first batch committed, two clients' leeway later.
    pub fn started() -> Self {
        Self::with(|_| {})
    }

    pub fn with(change: impl FnOnce(&mut PolicyDocument)) -> Self {
        let mut host = Self::fresh(change);
        host.hello();
        let start = host.start_request();
        let prepared = host.prepared(start);
        host.open.push(prepared);
        host.commit();
        // Until the future leeway has passed only proofs that name this log count.
        host.pass_ms(3_000);
        host
    }

    /// A signer that nobody has talked to.
    pub fn fresh(change: impl FnOnce(&mut PolicyDocument)) -> Self {
        let client = Client::new("shop");
        let mut policy = policy(1, &[Algorithm::Es256], &[&client]);
        change(&mut policy);
        let clock = SetClock(Reading { wall_ms: START_MS, boot_ms: 77_000 });
        Self {
            signer: Signer::new(clock).unwrap(),
            client,
            policy,
            identity: [0; 32],
            log: Vec::new(),
            open: Vec::new(),
            keys_jwt: None,
            last_seq: 0,
            notices: Vec::new(),
        }
    }

    pub fn now_s(&mut self) -> u64 {
        self.signer.clock_mut().0.wall_ms / 1_000
    }

    /// Time passes for both clocks, without a sweep.
    pub fn pass_ms(&mut self, ms: u64) {
        let reading = &mut self.signer.clock_mut().0;
        reading.wall_ms += ms;
        reading.boot_ms += ms;
    }

    /// Time passes with a sweep, an empty `Prepare` and its `Commit` each second, as the service does.
    pub fn run_s(&mut self, seconds: u64) {
        for _ in 0..seconds {
            self.pass_ms(1_000);
            self.signer.tick().unwrap();
            self.prepare(Vec::new());
            self.commit();
        }
    }

    pub fn hello(&mut self) -> Welcome {
        let hello = Hello { versions: vec![PROTOCOL_VERSION], software: "test".into() };
        match self.signer.handle(Request::Hello(hello)) {
            Response::Welcome(welcome) => {
                self.identity = *welcome.identity;
                welcome
            }
            other => panic!("no welcome: {other:?}"),
        }
    }

    pub fn start_request(&self) -> Request {
        Request::Start(Start {
            policy: self.policy.to_json().unwrap().into(),
            predecessor: None,
            compromised: Vec::new(),
        })
    }

    pub fn log_id(&self) -> String {
        self.signer.log_id().to_string()
    }

    pub fn vkey(&mut self) -> VerifierKey {
        let origin = format!("issuer.example/log/{}", LogId::of(&self.identity));
        VerifierKey::new_ed25519(&origin, &self.identity).unwrap()
    }

    pub fn fault(&mut self, request: Request) -> FaultCode {
        match self.signer.handle(request) {
            Response::Fault(fault) => fault.code,
            other => panic!("no fault: {other:?}"),
        }
    }

    /// A request that is answered by a batch, with its signatures made.
    pub fn prepared(&mut self, request: Request) -> Prepared {
        match self.signer.handle(request) {
            Response::Prepared(prepared) => {
                self.signer.sign_open();
                self.notices.extend(prepared.notices.iter().cloned());
                prepared
            }
            other => panic!("not prepared: {other:?}"),
        }
    }

    pub fn prepare(&mut self, requests: Vec<IssueRequest>) -> Prepared {
        let prepared = self.prepared(Request::Prepare(Prepare { requests, audit: vec![] }));
        self.open.push(prepared.clone());
        prepared
    }

    /// Commits the oldest open batch, after checking it as a stranger would, and every token that
    /// comes out of it.
    pub fn commit(&mut self) -> Committed {
        let prepared = self.open.remove(0);
        let before = self.log.len() as u64;
        assert_eq!(prepared.first_index, before, "batches continue the log");
        self.log.extend(prepared.entries.iter().map(|e| e.to_vec()));
        self.check_checkpoint(&prepared);
        let answer = self.signer.handle(Request::Commit(Commit { batch: prepared.batch }));
        let Response::Committed(committed) = answer else { panic!("not committed: {answer:?}") };
        let granted = granted(&prepared);
        assert_eq!(granted.len(), committed.tokens.len(), "a token or a void for each grant");
        if let Some(keys_jwt) = &committed.keys_jwt {
            self.check_keys_jwt(keys_jwt);
            self.keys_jwt = Some(keys_jwt.clone());
        }
        for (grant, token) in granted.iter().zip(&committed.tokens) {
            if let Some(token) = token {
                self.check_token(grant, token);
            }
        }
        committed
    }

    pub fn root(&self) -> Hash {
        let mut tree = Frontier::new();
        for entry in &self.log {
            tree.append(leaf_hash(entry));
        }
        tree.root()
    }

    fn check_checkpoint(&mut self, prepared: &Prepared) {
        let key = self.vkey();
        let (checkpoint, _) = Checkpoint::open(prepared.checkpoint.as_bytes(), &[key]).unwrap();
        assert_eq!(checkpoint.size, self.log.len() as u64);
        assert_eq!(checkpoint.root, self.root(), "the checkpoint covers exactly these entries");
        assert!(checkpoint.extensions.is_empty());
    }

    pub fn entries(&self) -> Vec<Entry> {
        self.log.iter().map(|bytes| Entry::decode(bytes).unwrap()).collect()
    }

    /// By thumbprint: the key and its window, as the log tells it.
    pub fn announced(&self) -> BTreeMap<[u8; 32], (PublicKey, u64, u64)> {
        let mut keys = BTreeMap::new();
        for entry in self.entries() {
            match entry {
                Entry::Announcement(a) => {
                    assert_eq!(a.issuer, ISSUER);
                    let jwk: Map<String, Value> = serde_json::from_str(&a.jwk).unwrap();
                    let key = PublicKey::from_jwk(&jwk).unwrap();
                    assert_eq!(key.algorithm().as_str(), a.algorithm);
                    assert!(!jwk.contains_key("d"), "a private member");
                    assert_eq!(key.kid().as_bytes(), &a.kid);
                    keys.insert(a.kid, (key, a.nbf, a.signs_until));
                }
                Entry::Narrowing(n) => keys.get_mut(&n.kid).unwrap().2 = n.signs_until,
                _ => {}
            }
        }
        keys
    }

    pub fn compromised(&self) -> Vec<[u8; 32]> {
        let kid = |e| if let Entry::Compromise(c) = e { Some(c.kid) } else { None };
        self.entries().into_iter().filter_map(kid).collect()
    }

    pub fn voids(&self) -> Vec<(u64, chancery_entry::VoidReason)> {
        let void = |e| if let Entry::Void(v) = e { Some((v.index, v.reason)) } else { None };
        self.entries().into_iter().filter_map(void).collect()
    }

    /// Everything that a token must be, from the token and the committed log alone.
    fn check_token(&self, grant: &GrantedToken, token: &str) {
        let compact = jws::parse(token, jws::MAX_TOKEN_BYTES).unwrap();
        let header = token.split('.').next().unwrap();
        let header: Map<String, Value> =
            serde_json::from_slice(&chancery_token::b64::decode(header).unwrap()).unwrap();
        let mut members: Vec<_> = header.keys().map(String::as_str).collect();
        members.sort_unstable();
        assert_eq!(members, ["alg", "kid", "typ"]);
        assert_eq!(header["typ"], "at+jwt");
        let claims: Map<String, Value> = serde_json::from_slice(&compact.payload).unwrap();
        let (iat, exp) = (claims["iat"].as_u64().unwrap(), claims["exp"].as_u64().unwrap());
        let kid: chancery_token::KeyId = compact.header.kid.as_ref().unwrap().parse().unwrap();
        let (key, nbf, until) = &self.announced()[kid.as_bytes()];
        jws::verify(&compact, key, false).expect("the signature is by the announced key");
        assert!(*nbf <= iat && iat < *until, "iat {iat} outside {nbf}..{until}");
        assert!(!self.compromised().contains(kid.as_bytes()), "signed by a compromised key");
        assert_eq!(claims["iss"], ISSUER);
        // The address in `jti` leads to the leaf.
        let jti: Vec<_> = claims["jti"].as_str().unwrap().split('.').collect();
        assert_eq!(jti.len(), 3);
        assert_eq!(jti[0], self.log_id());
        assert_eq!(chancery_token::b64::decode(jti[2]).unwrap().len(), 16);
        let index: u64 = jti[1].parse().unwrap();
        assert_eq!(index, grant.index);
        let leaf = TokenEntry::of(*kid.as_bytes(), iat, exp, compact.signing_input.as_bytes());
        let entry = self.log.get(index as usize).expect("released before its entry was committed");
        assert_eq!(Entry::decode(entry).unwrap(), Entry::Token(leaf));
        assert!(!self.voids().iter().any(|(at, _)| *at == index), "a void token came out");
        assert_eq!((grant.iat, grant.iat + grant.lifetime_s), (iat, exp));
        assert_eq!(claims["sub"], grant.subject.as_str());
        assert_eq!(claims["jti"], grant.jti.as_str());
    }

    fn check_keys_jwt(&mut self, text: &str) {
        let (set, payload) = self.read_keys_jwt(text);
        let seq = payload["seq"].as_u64().unwrap();
        assert!(seq > self.last_seq, "the sequence number increases");
        self.last_seq = seq;
        assert_eq!(payload["iss"], format!("issuer.example/log/{}", self.log_id()));
        assert_eq!(payload["log"], self.log_id());
        assert!(payload["exp"].as_u64().unwrap() > payload["iat"].as_u64().unwrap());
        assert!(set.refused.is_empty(), "{:?}", set.refused);
        let announced = self.announced();
        let compromised = self.compromised();
        for member in set.members() {
            let kid = member.key.kid();
            let (key, nbf, until) = &announced[kid.as_bytes()];
            assert_eq!(key.algorithm(), member.key.algorithm());
            let window = member.window.unwrap();
            // A member may narrow what is announced so far, the entry follows; it never widens it.
            assert!(
                window.nbf == *nbf && window.signs_until <= *until,
                "{window:?}, {nbf}..{until}"
            );
            assert_eq!(member.issuer.as_deref(), Some(ISSUER));
            assert!(member.exp.unwrap() >= window.signs_until);
            let log = member.log.as_deref().unwrap();
            let (id, index) = log.split_once('.').unwrap();
            assert_eq!(id, self.log_id());
            let entry = Entry::decode(&self.log[index.parse::<usize>().unwrap()]).unwrap();
            assert!(matches!(entry, Entry::Announcement(a) if a.kid == *kid.as_bytes()));
            assert!(!compromised.contains(kid.as_bytes()), "a compromised key is published");
        }
    }

    /// The signed key set, verified with the identity key.
    pub fn read_keys_jwt(&self, text: &str) -> (KeySet, Map<String, Value>) {
        let compact = jws::parse(text, 8 * 1024 * 1024).unwrap();
        assert_eq!(compact.header.typ.as_deref(), Some("jwk-set+jwt"));
        let identity = PublicKey::from_raw(Algorithm::Ed25519, &self.identity).unwrap();
        jws::verify(&compact, &identity, false).unwrap();
        let payload = chancery_token::json::parse_object(&compact.payload).unwrap();
        (KeySet::from_object(&payload).unwrap(), payload)
    }

    pub fn published(&self) -> Vec<String> {
        let (set, _) = self.read_keys_jwt(self.keys_jwt.as_ref().unwrap());
        set.members().iter().map(|m| m.kid.clone()).collect()
    }

    /// A request with a fresh assertion.
    pub fn assertion(&mut self) -> IssueRequest {
        let now = self.now_s();
        let proof = self.client.proof(now);
        request(assertion_of(self.client.sign("client-authentication+jwt", &proof)))
    }

    /// A fresh signed request for these request objects.
    pub fn signed(&mut self, requests: Value) -> IssueRequest {
        let now = self.now_s();
        let mut payload = self.client.proof(now);
        payload["requests"] = requests;
        request(Proof::Signed { jws: self.client.sign(REQUEST_TYP, &payload) })
    }

    /// One token, the ordinary way.
    pub fn token(&mut self) -> String {
        let request = self.assertion();
        self.prepare(vec![request]);
        while self.open.len() > 1 {
            self.commit();
        }
        self.commit().tokens.remove(0).expect("a token")
    }

    pub fn status(&mut self) -> Status {
        match self.signer.handle(Request::Status) {
            Response::Status(status) => status,
            other => panic!("no status: {other:?}"),
        }
    }

    pub fn resume_request(&self) -> Request {
        Request::Resume(Resume { size: self.log.len() as u64, root: self.root().0.into() })
    }

    /// A new service over the same durable log.
    pub fn reconnect(&mut self) -> Resumed {
        self.signer.connected();
        assert!(!self.hello().fresh);
        let resume = self.resume_request();
        match self.signer.handle(resume) {
            Response::Resumed(resumed) => resumed,
            other => panic!("not resumed: {other:?}"),
        }
    }
}

pub fn granted(prepared: &Prepared) -> Vec<GrantedToken> {
    let outcomes = prepared.decisions.iter().flat_map(|d| &d.outcomes);
    outcomes
        .filter_map(|o| if let Outcome::Granted(g) = o { Some(g.clone()) } else { None })
        .collect()
}

/// The refusal codes of a batch, in order, `granted` for the rest.
pub fn codes(prepared: &Prepared) -> Vec<String> {
    let outcomes = prepared.decisions.iter().flat_map(|d| &d.outcomes);
    outcomes
        .map(|o| match o {
            Outcome::Granted(_) => "granted".to_owned(),
            Outcome::Refused { code, .. } => code.clone(),
        })
        .collect()
}

/// The code of a batch's only outcome.
pub fn code(prepared: &Prepared) -> String {
    let all = codes(prepared);
    assert_eq!(all.len(), 1, "{all:?}");
    all.into_iter().next().unwrap()
}
