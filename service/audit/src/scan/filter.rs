//! What a question asks for.

use chancery_token::b64;

use super::columns::overlaps_partly;
use crate::segment::join;
use crate::{Outcome, Record};

/// Every condition that is set must hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filter {
    /// First millisecond.
    pub from_ms: u64,
    /// The millisecond behind the last.
    pub to_ms: u64,
    /// What was decided.
    pub outcome: Option<Outcome>,
    /// Reason code.
    pub code: Option<String>,
    /// Realm.
    pub realm: Option<String>,
    /// Client.
    pub client: Option<String>,
    /// Subject.
    pub subject: Option<String>,
    /// One of the audiences.
    pub audience: Option<String>,
    /// Key thumbprint, base64url.
    pub kid: Option<String>,
    /// Source address.
    pub address: Option<String>,
    /// `jti`.
    pub jti: Option<String>,
    /// SHA-256 of the signing input.
    pub digest: Option<[u8; 32]>,
    /// Request id.
    pub request_id: Option<String>,
}

impl Default for Filter {
    fn default() -> Self {
        Self {
            from_ms: 0,
            to_ms: u64::MAX,
            outcome: None,
            code: None,
            realm: None,
            client: None,
            subject: None,
            audience: None,
            kid: None,
            address: None,
            jti: None,
            digest: None,
            request_id: None,
        }
    }
}

impl Filter {
    /// Conditions on columns with a dictionary, but the audience's.
    pub(super) fn texts(&self) -> impl Iterator<Item = (&'static str, &str)> {
        [
            ("outcome", self.outcome.map(Outcome::as_str)),
            ("code", self.code.as_deref()),
            ("realm", self.realm.as_deref()),
            ("client", self.client.as_deref()),
            ("subject", self.subject.as_deref()),
            ("kid", self.kid.as_deref()),
            ("address", self.address.as_deref()),
        ]
        .into_iter()
        .filter_map(|(name, text)| Some((name, text?)))
    }

    /// Conditions on columns of plain texts.
    pub(super) fn plain(&self) -> impl Iterator<Item = (&'static str, &str)> {
        [("jti", self.jti.as_deref()), ("request_id", self.request_id.as_deref())]
            .into_iter()
            .filter_map(|(name, text)| Some((name, text?)))
    }

    /// The audience as it is spelt in its column.
    pub(super) fn spelt_audience(&self) -> Option<String> {
        self.audience.as_ref().map(|audience| join(std::slice::from_ref(audience)))
    }

    /// The columns that must be read to decide, for a row group with these times.
    pub(super) fn columns(&self, times: Option<(u64, u64)>) -> Vec<&'static str> {
        let mut names = Vec::new();
        if overlaps_partly(times, self.from_ms, self.to_ms) {
            names.push("time");
        }
        names.extend(self.texts().map(|(name, _)| name));
        names.extend(self.plain().map(|(name, _)| name));
        if self.audience.is_some() {
            names.push("audience");
        }
        if self.digest.is_some() {
            names.push("digest");
        }
        names
    }

    /// Whether a record is asked for.
    #[must_use]
    pub fn matches(&self, record: &Record) -> bool {
        let token = record.token.as_ref();
        let kid = token.map(|t| b64::encode(&t.kid)).unwrap_or_default();
        let is = |wanted: &Option<String>, text: &str| wanted.as_ref().is_none_or(|w| w == text);
        (self.from_ms..self.to_ms).contains(&record.time_ms)
            && self.outcome.is_none_or(|wanted| wanted == record.outcome)
            && is(&self.code, &record.code)
            && is(&self.realm, &record.realm)
            && is(&self.client, &record.client)
            && is(&self.subject, &record.subject)
            && is(&self.kid, &kid)
            && is(&self.address, &record.address)
            && is(&self.request_id, &record.request_id)
            && is(&self.jti, token.map_or("", |t| &t.jti))
            && self.digest.is_none_or(|wanted| token.is_some_and(|t| t.digest == wanted))
            && self.spelt_audience().is_none_or(|wanted| {
                join(&record.audiences).split(' ').any(|audience| audience == wanted)
            })
    }
}
