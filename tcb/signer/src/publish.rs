//! The signer's own part of the key set, signed by its identity key: `keys.jwt`.

use chancery_token::{Algorithm, jwks, jws};
use serde_json::json;

use crate::clock::Now;
use crate::keys::Keys;
use crate::log::{Error, Log};

/// `typ` of the signed key set.
pub const KEY_SET_TYP: &str = "jwk-set+jwt";
/// How long a signed key set may be believed, in seconds: a signer that dies is distrusted by
/// relying parties with a trust anchor within this time, unless they know its announcements.
pub const KEY_SET_LIFETIME_S: u64 = 300;
/// How often it is signed anew without a change, in seconds: often enough that a reader always
/// finds one with most of its life ahead.
pub const KEY_SET_REFRESH_S: u64 = 60;

/// Makes `keys.jwt` when it is due.
#[derive(Debug, Default)]
pub struct KeySetPublisher {
    sequence: u64,
    signed_at: Option<u64>,
    latest: String,
}

impl KeySetPublisher {
    /// The latest signed key set; empty before the first commit.
    pub fn latest(&self) -> &str {
        &self.latest
    }

    /// A new signed key set, when keys changed or the last one grew old.
    ///
    /// # Errors
    /// [`Error::Identity`] when it cannot be signed.
    pub fn update(
        &mut self,
        keys: &mut Keys,
        log: &Log,
        now: Now,
    ) -> Result<Option<String>, Error> {
        let now_s = now.seconds();
        let old = self.signed_at.is_none_or(|at| now_s.saturating_sub(at) >= KEY_SET_REFRESH_S);
        if !keys.take_changed() && !old {
            return Ok(None);
        }
        self.sequence = self.sequence.saturating_add(1);
        self.signed_at = Some(now_s);
        let members = members(keys, log.id_text(), now_s);
        let set: serde_json::Value = serde_json::from_str(&jwks::to_json(&members))
            .map_err(|e| Error::Identity(e.to_string()))?;
        let payload = json!({
            "iss": log.origin(),
            "log": log.id_text(),
            "seq": self.sequence,
            "iat": now_s,
            "exp": now_s.saturating_add(KEY_SET_LIFETIME_S),
            "keys": set.get("keys"),
        });
        let identity = log.identity();
        let kid = identity.public().kid();
        let input = jws::signing_input(
            Algorithm::Ed25519,
            KEY_SET_TYP,
            &kid,
            payload.to_string().as_bytes(),
        );
        let signature =
            identity.sign(input.as_bytes()).map_err(|e| Error::Identity(e.to_string()))?;
        self.latest = jws::assemble(input, &signature);
        Ok(Some(self.latest.clone()))
    }
}

/// Every key whose announcement is committed and that a live token may need, or that will sign.
fn members(keys: &Keys, log: &str, now_s: u64) -> Vec<jwks::Member> {
    let mut members = Vec::new();
    for lane in keys.lanes() {
        for key in &lane.keys {
            let leaves_at = key.facts.leaves_at(now_s);
            if key.facts.compromised || key.facts.committed_ms.is_none() || leaves_at <= now_s {
                continue;
            }
            members.push(jwks::Member {
                kid: key.public.kid().to_string(),
                key: key.public.clone(),
                issuer: Some(lane.issuer.clone()),
                window: Some(jwks::Window {
                    nbf: key.announced_nbf(),
                    signs_until: key.facts.signs_until,
                }),
                exp: Some(leaves_at),
                log: Some(format!("{log}.{}", key.announced_at)),
            });
        }
    }
    members
}
