//! Judges tokens as a relying party and an auditor would: by the served key set and the logs.

use std::cell::RefCell;
use std::collections::HashMap;

use chancery_tlog::note::VerifierKey;
use chancery_tlog::{Checkpoint, EntriesTileId, Hash, TILE_WIDTH, TileId, decode_entries};
use chancery_validate::log::{LogReader, Search, Verdict, look_up};
use chancery_validate::{Rejection, Validated, Validator, ValidatorConfig};

use crate::{Lab, Web, now};

/// Seconds after which an entry must be under a served checkpoint.
const PUBLISH_WITHIN_S: u64 = 10;

/// One log over HTTP; what was read is kept, so that thousands of tokens cost few requests.
#[derive(Debug)]
pub struct WebLog {
    web: Web,
    url: String,
    kept: RefCell<HashMap<String, Vec<u8>>>,
}

impl WebLog {
    /// The log below a URL that ends before `/checkpoint`.
    #[must_use]
    pub fn new(web: &Web, url: String) -> Self {
        Self { web: web.clone(), url, kept: RefCell::default() }
    }

    /// The log's verifier key.
    ///
    /// # Panics
    /// When it cannot be read.
    #[must_use]
    pub fn key(&self) -> VerifierKey {
        let text = self.vkey().unwrap_or_else(|e| panic!("{e}"));
        VerifierKey::parse(text.lines().next().unwrap_or_default())
            .unwrap_or_else(|e| panic!("{e}"))
    }

    /// The latest checkpoint, fetched anew and verified.
    ///
    /// # Panics
    /// When it cannot be read or is not signed by the log's key.
    #[must_use]
    pub fn latest(&self) -> Checkpoint {
        self.kept.borrow_mut().clear();
        let note = self.checkpoint().unwrap_or_else(|e| panic!("{e}"));
        let opened = Checkpoint::open(&note, &[self.key()]);
        opened.unwrap_or_else(|e| panic!("checkpoint: {e}")).0
    }

    /// Every entry under the latest checkpoint.
    ///
    /// # Panics
    /// When one cannot be read.
    #[must_use]
    pub fn entries(&self) -> Vec<Vec<u8>> {
        let size = self.latest().size;
        let mut entries = Vec::new();
        for index in 0..size.div_ceil(TILE_WIDTH) {
            let id = EntriesTileId::at(index, size).expect("a bundle");
            let bytes = self.read(&id.path()).unwrap_or_else(|e| panic!("{e}"));
            let bundle = decode_entries(&bytes, usize::from(id.width));
            entries.extend(bundle.unwrap_or_else(|e| panic!("{}: {e}", id.path())));
        }
        entries
    }

    fn read(&self, path: &str) -> Result<Vec<u8>, String> {
        if let Some(bytes) = self.kept.borrow().get(path) {
            return Ok(bytes.clone());
        }
        let answer = self.web.try_send("GET", &format!("{}/{path}", self.url), &[], b"")?;
        if answer.status != 200 {
            return Err(format!("{path}: HTTP {}: {}", answer.status, answer.text()));
        }
        self.kept.borrow_mut().insert(path.to_owned(), answer.body.clone());
        Ok(answer.body)
    }
}

impl LogReader for WebLog {
    type Error = String;

    fn checkpoint(&self) -> Result<Vec<u8>, String> {
        self.read("checkpoint")
    }

    fn tile(&self, id: TileId) -> Result<Vec<u8>, String> {
        self.read(&id.path())
    }

    fn vkey(&self) -> Result<String, String> {
        Ok(String::from_utf8_lossy(&self.read("vkey")?).trim_end().to_owned())
    }

    fn search(&self, leaf: &Hash) -> Result<Search, String> {
        let url = format!("{}/{}", self.url, Search::path(leaf));
        let answer = self.web.try_send("GET", &url, &[], b"")?;
        Search::parse(&answer.body).ok_or_else(|| format!("{url}: HTTP {}", answer.status))
    }
}

/// A relying party of one realm, with the key set as served when it was made.
#[derive(Debug)]
pub struct Judge {
    validator: Validator,
    web: Web,
    url: String,
    logs: HashMap<String, WebLog>,
}

impl Judge {
    /// Fetches the realm's key set.
    ///
    /// # Panics
    /// When it cannot be fetched or read.
    #[must_use]
    pub fn new(lab: &Lab, realm: &str, audience: &str) -> Self {
        let answer = lab.web.get(&format!("{}/{realm}/jwks.json", lab.url()));
        let config = ValidatorConfig::new(lab.issuer(realm), audience);
        let validator = Validator::from_jwks(config, &answer.body)
            .unwrap_or_else(|e| panic!("key set: {e}: {}", answer.text()));
        let url = lab.url();
        Self { validator, web: lab.web.clone(), url, logs: HashMap::new() }
    }

    /// Validates a token now.
    ///
    /// # Errors
    /// Why it is not acceptable.
    pub fn validate(&self, token: &str) -> Result<Validated, Rejection> {
        self.validator.validate(token, now())
    }

    /// What its log says about a token.
    pub fn look_up(&mut self, token: &Validated) -> Verdict {
        let id = token.log_address().expect("the key names its log").log().to_string();
        let url = format!("{}/log/{id}", self.url);
        let log = self.logs.entry(id).or_insert_with(|| WebLog::new(&self.web, url));
        match look_up(token, log, now(), PUBLISH_WITHIN_S) {
            Verdict::Pending | Verdict::Missing => {
                // The kept checkpoint may be older than the token.
                log.kept.borrow_mut().clear();
                look_up(token, log, now(), PUBLISH_WITHIN_S)
            }
            verdict => verdict,
        }
    }

    /// Validates a token and finds it in its log.
    ///
    /// # Panics
    /// When it is rejected or not in its log.
    pub fn must_hold(&mut self, token: &str) -> Validated {
        let validated =
            self.validate(token).unwrap_or_else(|e| panic!("rejected: {e}\ntoken: {token}"));
        let verdict = self.look_up(&validated);
        assert!(matches!(verdict, Verdict::InLog { .. }), "{verdict:?}\ntoken: {token}");
        validated
    }
}
