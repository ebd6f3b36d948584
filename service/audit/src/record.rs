//! One decision.

use minicbor::{Decode, Encode};

/// The longest text of a record, in bytes: the longest audience that a token request may name. Longer
/// ones are cut, which only what strangers send can be.
pub const MAX_TEXT_BYTES: usize = 1_024;
/// The longest scope, in bytes, as on the token endpoint.
const MAX_SCOPE_BYTES: usize = 8 * 1_024;
/// The most audiences of one record, as on the token endpoint.
pub const MAX_AUDIENCES: usize = 16;

/// What was decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Encode, Decode)]
#[cbor(index_only)]
pub enum Outcome {
    /// A token was granted; it is in the log.
    #[n(0)]
    Granted,
    /// The policy said no; `code` says why.
    #[n(1)]
    Refused,
    /// A granted token whose signature was never released; a void entry in the log says why.
    #[n(2)]
    Voided,
    /// An operator changed something; `code` says what.
    #[n(3)]
    Changed,
}

impl Outcome {
    /// All of them, in the order of their numbers.
    pub const ALL: [Outcome; 4] =
        [Outcome::Granted, Outcome::Refused, Outcome::Voided, Outcome::Changed];

    /// As it stands in the column `outcome`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Outcome::Granted => "granted",
            Outcome::Refused => "refused",
            Outcome::Voided => "voided",
            Outcome::Changed => "changed",
        }
    }

    /// The outcome with this name.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|o| o.as_str() == text)
    }
}

/// A granted token, by its address and never by its bytes.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Token {
    /// `jti`: `<log id>.<index>.<randomness>`.
    #[n(0)]
    pub jti: String,
    /// SHA-256 of the JWS signing input, as in the log's entry.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub digest: [u8; 32],
    /// Thumbprint of the key.
    #[cbor(n(2), with = "minicbor::bytes")]
    pub kid: [u8; 32],
    /// `exp`, Unix seconds.
    #[n(3)]
    pub exp: u64,
    /// Lifetime in seconds.
    #[n(4)]
    pub lifetime_s: u64,
}

/// One decision, or several of strangers counted together. An empty text is an unknown one.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Record {
    /// When it was recorded, Unix milliseconds by the service's clock; never before the record that
    /// precedes it in its log.
    #[n(0)]
    pub time_ms: u64,
    /// What was decided.
    #[n(1)]
    pub outcome: Outcome,
    /// Reason code of a refusal, or what an operator changed.
    #[n(2)]
    pub code: String,
    /// Explanation.
    #[n(3)]
    pub detail: String,
    /// The realm.
    #[n(4)]
    pub realm: String,
    /// The client, once authenticated; or the operator's user.
    #[n(5)]
    pub client: String,
    /// `sub`.
    #[n(6)]
    pub subject: String,
    /// `aud`.
    #[n(7)]
    pub audiences: Vec<String>,
    /// Scope values, separated by spaces.
    #[n(8)]
    pub scope: String,
    /// Name of the grant.
    #[n(9)]
    pub grant: String,
    /// Version of the policy; 0 where none decided.
    #[n(10)]
    pub policy_version: u64,
    /// The token, where one was granted.
    #[n(11)]
    pub token: Option<Token>,
    /// Source address as the service saw it.
    #[n(12)]
    pub address: String,
    /// `User-Agent`, cut to a bound.
    #[n(13)]
    pub user_agent: String,
    /// Id of the request, as in its answer's header: base64url.
    #[n(14)]
    pub request_id: String,
    /// Milliseconds from the request's arrival to this record.
    #[n(15)]
    pub latency_ms: u32,
    /// 1, or how many refusals of strangers this record stands for.
    #[n(16)]
    pub count: u64,
}

impl Record {
    /// A record with nothing but its time and outcome.
    #[must_use]
    pub fn new(time_ms: u64, outcome: Outcome) -> Self {
        Self {
            time_ms,
            outcome,
            code: String::new(),
            detail: String::new(),
            realm: String::new(),
            client: String::new(),
            subject: String::new(),
            audiences: Vec::new(),
            scope: String::new(),
            grant: String::new(),
            policy_version: 0,
            token: None,
            address: String::new(),
            user_agent: String::new(),
            request_id: String::new(),
            latency_ms: 0,
            count: 1,
        }
    }

    /// The record with every text cut to its bound, so that it always has an encoding.
    #[must_use]
    pub fn bounded(mut self) -> Self {
        for text in self.texts_mut() {
            cut(text, MAX_TEXT_BYTES);
        }
        cut(&mut self.scope, MAX_SCOPE_BYTES);
        self.audiences.truncate(MAX_AUDIENCES);
        self
    }

    fn texts_mut(&mut self) -> impl Iterator<Item = &mut String> {
        let own = [
            &mut self.code,
            &mut self.detail,
            &mut self.realm,
            &mut self.client,
            &mut self.subject,
            &mut self.grant,
            &mut self.address,
            &mut self.user_agent,
            &mut self.request_id,
        ];
        let token = self.token.as_mut().map(|token| &mut token.jti);
        own.into_iter().chain(self.audiences.iter_mut()).chain(token)
    }

    /// Whether every text is within its bound.
    pub(crate) fn is_bounded(&self) -> bool {
        let own = [
            &self.code,
            &self.detail,
            &self.realm,
            &self.client,
            &self.subject,
            &self.grant,
            &self.address,
            &self.user_agent,
            &self.request_id,
        ];
        let token = self.token.as_ref().map(|token| &token.jti);
        let mut texts = own.into_iter().chain(&self.audiences).chain(token);
        texts.all(|text| text.len() <= MAX_TEXT_BYTES)
            && self.scope.len() <= MAX_SCOPE_BYTES
            && self.audiences.len() <= MAX_AUDIENCES
    }
}

fn cut(text: &mut String, limit: usize) {
    if text.len() > limit {
        text.truncate(text.floor_char_boundary(limit));
    }
}
