//! The corpus in `validate/vectors`, which every binding runs: its format, its run, its writing.
//!
//! `CHANCERY_WRITE_VECTORS=1 cargo test -p chancery-validate generated_vectors` writes it anew, with new keys.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use chancery_token::Algorithm;
use chancery_validate::{
    Keys, LogLookup, Rejection, RejectionCode, TokenCache, Validator, ValidatorConfig,
};
use serde::{Deserialize, Serialize};

use crate::cases;

/// One case. `validate/vectors/README.md` explains the members.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Case {
    pub id: String,
    pub reason: String,
    pub expect: String,
    pub now: u64,
    pub config: Config,
    pub token: String,
    /// The key set of the first issuer: in files its name, in memory its text.
    pub key_set: String,
    /// The key sets of the other issuers, likewise.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub other_key_sets: BTreeMap<String, String>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    profile: String,
    issuers: Vec<String>,
    audiences: Vec<String>,
    leeway_s: u64,
    max_lifetime_s: Option<u64>,
    accepted_typ: Vec<String>,
    allow_missing_typ: bool,
    accept_eddsa: bool,
    algorithms: Vec<Algorithm>,
    tenants: Vec<String>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    about: String,
    key_sets: BTreeMap<String, String>,
    cases: Vec<Case>,
}

impl From<&ValidatorConfig> for Config {
    fn from(config: &ValidatorConfig) -> Self {
        let config = config.clone();
        Self {
            profile: config.profile.to_string(),
            issuers: config.issuers,
            audiences: config.audiences,
            leeway_s: config.leeway_s,
            max_lifetime_s: config.max_lifetime_s,
            accepted_typ: config.accepted_typ,
            allow_missing_typ: config.allow_missing_typ,
            accept_eddsa: config.accept_eddsa,
            algorithms: config.algorithms,
            tenants: config.tenants,
        }
    }
}

impl From<&Config> for ValidatorConfig {
    fn from(config: &Config) -> Self {
        let config = config.clone();
        Self {
            profile: config.profile.parse().unwrap(),
            issuers: config.issuers,
            audiences: config.audiences,
            leeway_s: config.leeway_s,
            max_lifetime_s: config.max_lifetime_s,
            accepted_typ: config.accepted_typ,
            allow_missing_typ: config.allow_missing_typ,
            accept_eddsa: config.accept_eddsa,
            algorithms: config.algorithms,
            tenants: config.tenants,
            // The corpus judges tokens alone, without any log.
            log_lookup: LogLookup::Address,
        }
    }
}

impl Case {
    /// A validator with the case's configuration and key sets.
    pub fn validator(&self) -> Result<Validator, Rejection> {
        let config = ValidatorConfig::from(&self.config);
        let profile = config.profile;
        let mut validator = Validator::from_jwks(config, self.key_set.as_bytes())?;
        for (issuer, set) in &self.other_key_sets {
            validator = validator.with_keys_of(issuer, Keys::parse(profile, set.as_bytes())?);
        }
        Ok(validator)
    }

    /// The key sets: names or texts.
    fn sets(&mut self) -> impl Iterator<Item = &mut String> {
        std::iter::once(&mut self.key_set).chain(self.other_key_sets.values_mut())
    }

    /// The validator and the answer: `valid` or a code. A cache changes no answer.
    fn run(&self) -> String {
        let verdict = self.validator().and_then(|validator| {
            assert_eq!(validator.config().check(), Ok(()), "{}", self.id);
            let verdict = validator.validate(&self.token, self.now);
            let explained = validator.explain(&self.token, self.now);
            assert_eq!(explained.verdict, verdict, "{}", self.id);
            let (last, before) = explained.steps.split_last().unwrap();
            assert!(before.iter().all(|step| step.passed), "{}", self.id);
            assert_eq!(last.passed, verdict.is_ok(), "{}", self.id);
            let cached = validator.with_cache(Arc::new(TokenCache::new(1)));
            assert_eq!(cached.validate(&self.token, self.now), verdict, "{}", self.id);
            assert_eq!(cached.validate(&self.token, self.now), verdict, "{}", self.id);
            verdict
        });
        verdict.map_or_else(|rejection| rejection.code().to_string(), |_| "valid".to_owned())
    }
}

/// Files, what they are about, and their cases.
pub fn stored() -> BTreeMap<String, Vec<Case>> {
    let files = cases::all().into_iter().map(|(name, _, _)| {
        let text = std::fs::read(path(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
        let file: File = serde_json::from_slice(&text).unwrap();
        let with_text = |mut case: Case| {
            for set in case.sets() {
                *set = file.key_sets[set].clone();
            }
            case
        };
        (name.to_owned(), file.cases.into_iter().map(with_text).collect())
    });
    files.collect()
}

fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("../vectors/{name}.json"))
}

fn write(name: &str, about: &str, cases: Vec<Case>) {
    let mut file = File { about: about.to_owned(), key_sets: BTreeMap::new(), cases };
    for case in &mut file.cases {
        let id = case.id.clone();
        for (index, set) in case.sets().enumerate() {
            let known = file.key_sets.iter().find(|(_, text)| *text == set);
            let new = || if index == 0 { format!("set-{id}") } else { format!("set-{id}-{index}") };
            let name = known.map_or_else(new, |(name, _)| name.clone());
            file.key_sets.insert(name.clone(), std::mem::replace(set, name));
        }
    }
    let text = serde_json::to_string_pretty(&file).unwrap() + "\n";
    std::fs::write(path(name), text).unwrap();
}

fn check(file: &str, cases: &[Case]) {
    for case in cases {
        assert_eq!(case.run(), case.expect, "{file}/{}: {}", case.id, case.reason);
    }
}

#[test]
fn generated_vectors_have_their_expected_verdicts() {
    let files = cases::all();
    for (name, _, cases) in &files {
        check(name, cases);
    }
    if std::env::var_os("CHANCERY_WRITE_VECTORS").is_some() {
        files.into_iter().for_each(|(name, about, cases)| write(name, about, cases));
    }
}

#[test]
fn stored_vectors_have_their_expected_verdicts() {
    for (name, cases) in stored() {
        check(&name, &cases);
    }
}

#[test]
fn stored_vectors_are_those_that_the_generator_describes() {
    let described = |case: &Case| {
        let config = ValidatorConfig::from(&case.config);
        (case.id.clone(), case.expect.clone(), case.reason.clone(), case.now, config)
    };
    let stored = stored();
    for (name, _, cases) in cases::all() {
        let wanted: Vec<_> = cases.iter().map(described).collect();
        let found: Vec<_> = stored[name].iter().map(described).collect();
        assert_eq!(found, wanted, "{name}.json is stale; write the vectors anew");
    }
    let ids: Vec<_> = stored.values().flatten().map(|case| case.id.as_str()).collect();
    assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), ids.len(), "two cases share an id");
    assert!(ids.len() >= 150, "the corpus has {} cases", ids.len());
    let folder = path("x").parent().unwrap().to_owned();
    let files = std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().file_name());
    let known = |file: &String| {
        file == "README.md"
            || file.strip_suffix(".json").is_some_and(|file| stored.contains_key(file))
    };
    let unknown: Vec<_> =
        files.map(|file| file.into_string().unwrap()).filter(|file| !known(file)).collect();
    assert_eq!(unknown, Vec::<String>::new());
}

/// The codes that the stored corpus produces, each with one of its cases.
pub fn produced() -> BTreeMap<RejectionCode, BTreeSet<String>> {
    let mut produced: BTreeMap<_, BTreeSet<_>> = BTreeMap::new();
    for (file, cases) in stored() {
        for case in cases {
            let answer = case.run();
            let code = RejectionCode::ALL.iter().find(|code| code.as_str() == answer);
            if let Some(code) = code {
                produced.entry(*code).or_default().insert(format!("{file}/{}", case.id));
            }
        }
    }
    produced
}
