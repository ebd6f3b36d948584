//! Building a relying party.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};

use arc_swap::ArcSwap;
use chancery_validate::anchor::Anchor;
use chancery_validate::log::LogPolicy;
use chancery_validate::{Attestation, Keys, TokenCache, Validator, ValidatorConfig};
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, watch};

use crate::clock::Clock;
use crate::fetch::Web;
use crate::findings::{Callback, Finding, Findings, Seen};
use crate::issuer::{self, Issuer, Means, Source};
use crate::logs::Logs;
use crate::place::Place;
use crate::relying_party::{Current, Inner};
use crate::{Bounds, BuildError, RelyingParty};

/// Tokens that are remembered as being in their log: 40 octets each, some 4 MiB in all.
const REMEMBERED_TOKENS: usize = 65_536;

/// What a relying party is made of. All but the demands have defaults.
#[must_use = "nothing happens until `build` is called"]
pub struct Builder {
    config: ValidatorConfig,
    sources: HashMap<String, Given>,
    anchor: Option<Anchor>,
    log: LogPolicy,
    log_at: Option<String>,
    attestation: Attestation,
    cache: usize,
    bounds: Bounds,
    roots: Option<Vec<u8>>,
    plain_http: bool,
    callback: Option<Callback>,
    handle: Option<Handle>,
}

enum Given {
    Jwks(Vec<u8>),
    JwksUri(String),
    Metadata(String),
}

impl Given {
    /// Whether it may say where the issuer's logs are.
    const fn tells_logs(&self) -> bool {
        matches!(self, Self::Metadata(_))
    }
}

impl Builder {
    pub(crate) fn new(config: ValidatorConfig) -> Self {
        Self {
            config,
            sources: HashMap::new(),
            anchor: None,
            log: LogPolicy::default(),
            log_at: None,
            attestation: Attestation::default(),
            cache: 0,
            bounds: Bounds::default(),
            roots: None,
            plain_http: false,
            callback: None,
            handle: None,
        }
    }

    /// The key set of an issuer, for good: nothing is fetched for it.
    pub fn jwks(self, issuer: &str, jwks: &[u8]) -> Self {
        self.source(issuer, Given::Jwks(jwks.to_vec()))
    }

    /// Where the key set of an issuer is; its metadata is not read then.
    pub fn jwks_uri(self, issuer: &str, url: &str) -> Self {
        self.source(issuer, Given::JwksUri(url.to_owned()))
    }

    /// Where the metadata of an issuer is, if not where the standards say.
    pub fn metadata_uri(self, issuer: &str, url: &str) -> Self {
        self.source(issuer, Given::Metadata(url.to_owned()))
    }

    fn source(mut self, issuer: &str, given: Given) -> Self {
        self.sources.insert(issuer.to_owned(), given);
        self
    }

    /// Believes only keys whose announcement stands in a log that the anchor names.
    pub fn anchor(mut self, anchor: Anchor) -> Self {
        self.anchor = Some(anchor);
        self
    }

    /// Whether logs are asked about tokens. Default: [`LogPolicy::Off`].
    pub fn log(mut self, policy: LogPolicy) -> Self {
        self.log = policy;
        self
    }

    /// Where logs are: a URL or a folder that ends before `checkpoint`; `{log}` in it stands for a
    /// log's id. Default: where the issuer's metadata says.
    pub fn log_at(mut self, place: &str) -> Self {
        self.log_at = Some(place.to_owned());
        self
    }

    /// Whether evidence of the signer's isolation is demanded. Default: [`Attestation::Off`].
    pub fn attestation(mut self, attestation: Attestation) -> Self {
        self.attestation = attestation;
        self
    }

    /// Tokens that a cache of verified ones may hold, each some 2 KiB. Default: 0, no cache.
    pub fn cache(mut self, entries: usize) -> Self {
        self.cache = entries;
        self
    }

    /// Bounds other than the defaults.
    pub fn bounds(mut self, bounds: Bounds) -> Self {
        self.bounds = bounds;
        self
    }

    /// Root certificates (PEM) that are trusted instead of the system's.
    pub fn root_certificates(mut self, pem: &[u8]) -> Self {
        self.roots = Some(pem.to_vec());
        self
    }

    /// Allows `http` to other machines: whoever is on the way then chooses the keys. For networks
    /// that encrypt by other means. Default: no; `http` to this machine is always allowed.
    pub fn allow_plain_http(mut self, allow: bool) -> Self {
        self.plain_http = allow;
        self
    }

    /// Called with every verdict of a log that speaks against a token, on a thread where it may
    /// block. Under [`LogPolicy::Report`] all but "in log" are told, a pending one after the second
    /// look; under [`LogPolicy::Require`] those of missing and forged tokens.
    pub fn on_finding(mut self, callback: impl Fn(&Finding) + Send + Sync + 'static) -> Self {
        self.callback = Some(Arc::new(callback));
        self
    }

    /// The tokio runtime on which everything is fetched. Default: the one that `build` is called in.
    pub fn runtime(mut self, handle: Handle) -> Self {
        self.handle = Some(handle);
        self
    }

    /// Whether the logs that are demanded can be found.
    fn check_logs(&self) -> Result<(), BuildError> {
        if self.log == LogPolicy::Off && self.anchor.is_none() {
            return Ok(());
        }
        if !self.config.has_logs() {
            return Err(BuildError::LogOfOthers);
        }
        let nowhere = self.sources.iter().find(|(_, source)| !source.tells_logs());
        match nowhere {
            Some((issuer, _)) if self.log_at.is_none() => {
                Err(BuildError::NoLogPlace(issuer.clone()))
            }
            _ => Ok(()),
        }
    }

    /// Builds it, and begins to fetch. It does not wait: [`RelyingParty::ready`] does.
    ///
    /// # Errors
    /// What is wrong with the configuration.
    pub fn build(self) -> Result<RelyingParty, BuildError> {
        self.config.check()?;
        self.bounds.check()?;
        self.check_logs()?;
        let web = Web::new(&self.bounds, self.roots.as_deref(), self.plain_http)?;
        let clock = Arc::new(Clock::new());
        let issuers = self.issuers(&web, &clock)?;
        let needs_logs = self.log != LogPolicy::Off || self.anchor.is_some();
        let handle = self.handle.clone().or_else(|| Handle::try_current().ok());
        if handle.is_none() && (needs_logs || issuers.iter().any(|(one, _)| one.is_kept)) {
            return Err(BuildError::NoRuntime);
        }
        let logs = handle.clone().filter(|_| needs_logs).map(|handle| {
            let logs = Logs::new(web.clone(), handle, Arc::clone(&clock), &self.bounds);
            Arc::new(logs.with_anchor(self.anchor.clone()))
        });
        let log_at = self.log_place(&web)?;
        let means = Means {
            web,
            clock: Arc::clone(&clock),
            logs: logs.clone(),
            log_at: log_at.clone(),
            anchor: self.anchor.clone(),
            profile: self.config.profile,
            fetch_timeout: self.bounds.fetch_timeout,
            metadata_age_ms: u64::try_from(self.bounds.max_age.as_millis()).unwrap_or(u64::MAX),
        };
        let (tasks, issuers): (Vec<_>, Vec<_>) = issuers
            .into_iter()
            .map(|(issuer, ended)| {
                let issuer = Arc::new(issuer);
                let task = issuer.is_kept.then(|| (Arc::clone(&issuer), ended));
                (task, issuer)
            })
            .unzip();
        let inner = Arc::new_cyclic(|this| Inner {
            current: ArcSwap::from_pointee(self.first(&issuers)),
            replacing: Mutex::default(),
            issuers,
            clock,
            fetch_timeout: self.bounds.fetch_timeout,
            keep: self.bounds.keep,
            log: self.log,
            attestation: self.attestation,
            logs,
            log_at,
            publish_within_s: self.bounds.publish_within_s,
            handle: handle.clone(),
            in_log: Seen::new(REMEMBERED_TOKENS),
            looked_at: Seen::new(REMEMBERED_TOKENS),
            lookups: Arc::new(Semaphore::new(self.bounds.reports)),
            dropped_lookups: AtomicU64::new(0),
            findings: Findings::new(handle.as_ref(), self.callback.clone()),
            this: this.clone(),
        });
        if let Some(handle) = handle {
            for (issuer, ended) in tasks.into_iter().flatten() {
                let taker = Arc::downgrade(&inner);
                handle.spawn(issuer::keep(issuer, means.clone(), taker, ended));
            }
        }
        Ok(RelyingParty::from_inner(inner))
    }

    fn issuers(
        &self,
        web: &Web,
        clock: &Clock,
    ) -> Result<Vec<(Issuer, watch::Sender<u64>)>, BuildError> {
        let unknown = self.sources.keys().find(|name| !self.config.issuers.contains(name));
        if let Some(unknown) = unknown {
            return Err(BuildError::UnknownIssuer(unknown.clone()));
        }
        let now = clock.now().ms;
        let of = |name: &String| {
            let source = self.source_of(web, name)?;
            // With an anchor a given set is looked at in the logs, again and again.
            let is_kept = self.anchor.is_some() || !matches!(source, Source::Given(_));
            Ok(Issuer::new(name, source, is_kept, &self.bounds, now))
        };
        self.config.issuers.iter().map(of).collect()
    }

    fn source_of(&self, web: &Web, issuer: &str) -> Result<Source, BuildError> {
        let url = |text: &str| web.url(text).map_err(|error| BuildError::Url(error.to_string()));
        match self.sources.get(issuer) {
            Some(Given::Jwks(jwks)) => {
                let keys = Keys::parse(self.config.profile, jwks).map_err(|rejection| {
                    let why = rejection.detail().to_owned();
                    BuildError::KeySet { issuer: issuer.to_owned(), why }
                })?;
                Ok(Source::Given(keys))
            }
            Some(Given::JwksUri(text)) => Ok(Source::Url(url(text)?)),
            Some(Given::Metadata(text)) => {
                url(text)?;
                Ok(Source::Discovery(Some(text.clone())))
            }
            None => {
                url(issuer)?;
                Ok(Source::Discovery(None))
            }
        }
    }

    fn log_place(&self, web: &Web) -> Result<Option<Arc<Place>>, BuildError> {
        let Some(text) = &self.log_at else { return Ok(None) };
        let place = Place::parse(text);
        if let Place::Web(template) = &place {
            let url = template.replace("{log}", "log");
            web.url(&url).map_err(|error| BuildError::Url(error.to_string()))?;
        }
        Ok(Some(Arc::new(place)))
    }

    /// What judges before anything was fetched: by the key sets that were given.
    fn first(&self, issuers: &[Arc<Issuer>]) -> Current {
        let mut validator = Validator::new(self.config.clone(), Keys::unavailable());
        if self.cache > 0 {
            validator = validator.with_cache(Arc::new(TokenCache::new(self.cache)));
        }
        let mut until = Vec::with_capacity(issuers.len());
        for issuer in issuers {
            let given = match &issuer.source {
                Source::Given(keys) if !issuer.is_kept => Some(keys),
                _ => None,
            };
            if let Some(keys) = given {
                validator = validator.with_keys_of(&issuer.name, keys.clone());
            }
            until.push(given.map(|_| u64::MAX));
        }
        Current::new(validator, until)
    }
}

impl fmt::Debug for Builder {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut show = formatter.debug_struct("Builder");
        show.field("config", &self.config).field("log", &self.log).field("bounds", &self.bounds);
        show.finish_non_exhaustive()
    }
}
