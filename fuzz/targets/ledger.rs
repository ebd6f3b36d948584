//! Ledgers of logs with arbitrary entries, each with its length in 16 bits: what is served after the
//! signer's death lies within what was announced, and nothing of it is compromised.

#![no_main]

use chancery::ledger::Ledger;
use chancery_entry::Entry;
use chancery_token::jwks;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let mut ledger = Ledger::default();
    let mut announced = Vec::new();
    let mut rest = data;
    for index in 0.. {
        let Some((length, tail)) = rest.split_first_chunk() else { break };
        let length = usize::from(u16::from_be_bytes(*length));
        let Some((entry, tail)) = tail.split_at_checked(length) else { break };
        rest = tail;
        let Ok(entry) = Entry::decode(entry) else { continue };
        if let Entry::Announcement(announcement) = &entry {
            announced.push(announcement.clone());
        }
        ledger.apply(index, entry);
    }
    let members = ledger.members_after_death("_oEsEvOrTOasXbaaw1L5Bg", 30, 1_800_000_000);
    for member in &members {
        let window = member.window.expect("every member has one");
        let fits = |a: &chancery_entry::Announcement| {
            Some(a.issuer.as_str()) == member.issuer.as_deref()
                && a.nbf == window.nbf
                && window.signs_until <= a.signs_until
        };
        assert!(announced.iter().any(fits));
        assert!(!ledger.compromised.contains(member.key.kid().as_bytes()));
        assert!(member.exp.expect("every member leaves") <= ledger.last_needed(30));
        let fallen = ledger.fallen_with(member.key.kid().as_bytes(), 0, true);
        assert!(!fallen.is_empty());
    }
    jwks::KeySet::parse(jwks::to_json(&members).as_bytes()).map(drop).unwrap_or_else(|e| {
        // Only its size may be too much.
        assert!(jwks::to_json(&members).len() > jwks::MAX_SET_BYTES, "{e}");
    });
});
