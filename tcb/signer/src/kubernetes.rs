//! Steps 2 to 4 for claims that kube-apiserver wrote: they are judged, logged and signed as they
//! came. There is no proof of who asks; the policy alone bounds what a hostile host can get.

use std::sync::Arc;

use chancery_entry::{Entry, TokenEntry};
use chancery_policy::kubernetes::{self, Approved};
use chancery_policy::{Realm, Refusal, RefusalCode};
use chancery_signer_api::{GrantedToken, Outcome};
use chancery_token::jws;

use crate::issue::{
    Desk, FIXED_BYTES, MAX_ANSWER_BYTES, SIGNATURE_ROOM_BYTES, no_active_key, refused,
    signature_bytes,
};
use crate::log;
use crate::open::Appended;

/// Who asks, for the audit record: whoever the service let to its socket.
pub(crate) const CLIENT: &str = "kube-apiserver";
/// Name of the grant, for the audit record.
const GRANT: &str = "kubernetes";

/// Step 2: whether the realm's policy lets these claims be signed.
pub(crate) fn decide(
    desk: &mut Desk<'_>,
    realm: &str,
    claims: &str,
    context: &[u8],
) -> Result<(Arc<Realm>, Approved), Refusal> {
    desk.room(context)?;
    let realm = desk.policy.realm(realm)?.clone();
    let approved = kubernetes::decide(&realm, claims, desk.now.seconds())?;
    // Subject and audiences of the one answer, the whole token in the other: neither is longer than
    // the claims and this.
    let signature = signature_bytes(&realm, approved.algorithm()).saturating_mul(4).div_ceil(3);
    let bytes = claims.len().saturating_add(FIXED_BYTES).saturating_add(signature);
    if bytes > MAX_ANSWER_BYTES.saturating_sub(desk.bytes) {
        desk.full = true;
        return Err(Refusal::new(RefusalCode::Deferred, "the frame is full"));
    }
    desk.outcomes = desk.outcomes.saturating_add(1);
    desk.bytes = desk.bytes.saturating_add(bytes);
    Ok((realm, approved))
}

/// Steps 3 and 4: the token gets its leaf. Its address is not in its `jti`, which the API server
/// chose; whoever holds it finds the leaf by its digest.
pub(crate) fn append(
    desk: &mut Desk<'_>,
    realm: &Realm,
    claims: &str,
    approved: &Approved,
) -> Result<Outcome, log::Error> {
    let algorithm = approved.algorithm();
    let now = desk.now;
    let (iat, exp) = (approved.iat(), approved.exp());
    // INVARIANT I3: the key whose window holds that second. Where the API server's clock is ahead that
    // may be the next one, which signs only once its lead has passed.
    let Some(key) = desk
        .keys
        .lane_mut(&realm.name, algorithm)
        .and_then(|lane| lane.signs_for(iat, now).and_then(|at| lane.keys.get_mut(at)))
    else {
        return Ok(no_active_key(desk, realm, algorithm));
    };
    let lifetime_s = exp.saturating_sub(iat);
    if lifetime_s > key.facts.max_lifetime_s {
        let longest = key.facts.max_lifetime_s;
        return Ok(refused(kubernetes::lifetime_refused(lifetime_s, longest)));
    }
    let signing_input = format!("{}.{claims}", key.header);
    if signing_input.len().saturating_add(SIGNATURE_ROOM_BYTES) > jws::MAX_TOKEN_BYTES {
        let detail = "the token would be longer than 16 KiB";
        return Ok(refused(Refusal::new(RefusalCode::MalformedRequest, detail)));
    }
    let kid = key.public.kid();
    let index = desk.log.next_index();
    let entry = TokenEntry::of(*kid.as_bytes(), iat, exp, signing_input.as_bytes());
    desk.log.append(&Entry::Token(entry))?;
    key.note_expiry(exp);
    key.note_iat(iat);
    let signs_until = key.facts.signs_until;
    let lane = (realm.name.clone(), algorithm);
    desk.appended.push(Appended { index, signing_input, lane, kid, signs_until, verify: true });
    Ok(Outcome::Granted(GrantedToken {
        index,
        subject: approved.subject().to_owned(),
        audiences: approved.audiences().to_vec(),
        scope: String::new(),
        grant: GRANT.to_owned(),
        policy_version: realm.policy_version,
        kid: (*kid.as_bytes()).into(),
        jti: approved.jti().to_owned(),
        iat,
        lifetime_s,
    }))
}
