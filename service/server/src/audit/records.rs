//! Decisions as records.

use chancery_audit::{Outcome, Record, Token};
use chancery_entry::Entry;
use chancery_signer_api::{Decision, GrantedToken, Prepared};
use chancery_token::b64;

use super::Context;
use super::strangers::Strangers;

/// The records of a batch. Refusals of unknown clients go to `strangers`; requests that were only put
/// off come again and are recorded then.
pub fn of_batch(prepared: &Prepared, time_ms: u64, strangers: &mut Strangers) -> Vec<Record> {
    let mut records = Vec::with_capacity(prepared.decisions.len());
    for decision in &prepared.decisions {
        let context = Context::decode(&decision.context);
        for outcome in &decision.outcomes {
            let record = of(&context, decision, time_ms);
            match outcome {
                chancery_signer_api::Outcome::Granted(granted) => {
                    records.push(granted_record(record, granted, digest_of(prepared, granted)));
                }
                chancery_signer_api::Outcome::Refused { code, .. } if code == "deferred" => {}
                chancery_signer_api::Outcome::Refused { code, detail } => {
                    let refused = Record { code: code.clone(), detail: detail.clone(), ..record };
                    if decision.client.is_empty() {
                        strangers.count(refused);
                    } else {
                        records.push(refused);
                    }
                }
            }
        }
    }
    records
}

/// A note about a granted token that was never released.
pub fn voided(granted: &GrantedToken, context: &[u8]) -> Record {
    let context = Context::decode(context);
    let mut record = Record::new(super::now_ms(), Outcome::Voided);
    record.realm = context.realm;
    record.code = "voided".into();
    record.request_id = b64::encode(&context.request_id);
    let record = granted_record(record, granted, None);
    Record { outcome: Outcome::Voided, ..record }
}

fn of(context: &Context, decision: &Decision, time_ms: u64) -> Record {
    let latency = time_ms.saturating_sub(context.arrived_ms);
    let known = context.arrived_ms > 0;
    Record {
        realm: context.realm.clone(),
        client: decision.client.clone(),
        address: context.address_text(),
        user_agent: context.user_agent.clone(),
        request_id: b64::encode(&context.request_id),
        latency_ms: if known { u32::try_from(latency).unwrap_or(u32::MAX) } else { 0 },
        ..Record::new(time_ms, Outcome::Refused)
    }
}

fn granted_record(record: Record, granted: &GrantedToken, digest: Option<[u8; 32]>) -> Record {
    Record {
        outcome: Outcome::Granted,
        subject: granted.subject.clone(),
        audiences: granted.audiences.clone(),
        scope: granted.scope.clone(),
        grant: granted.grant.clone(),
        policy_version: granted.policy_version,
        token: Some(Token {
            jti: granted.jti.clone(),
            digest: digest.unwrap_or_default(),
            kid: *granted.kid,
            exp: granted.iat.saturating_add(granted.lifetime_s),
            lifetime_s: granted.lifetime_s,
        }),
        ..record
    }
}

/// The digest of a token, from its entry in the same batch.
fn digest_of(prepared: &Prepared, granted: &GrantedToken) -> Option<[u8; 32]> {
    let at = granted.index.checked_sub(prepared.first_index)?;
    let entry = prepared.entries.get(usize::try_from(at).ok()?)?;
    match Entry::decode(entry).ok()? {
        Entry::Token(token) => Some(token.digest),
        _ => None,
    }
}
