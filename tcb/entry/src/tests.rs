use proptest::prelude::*;

use super::*;

fn token() -> Entry {
    Entry::Token(TokenEntry::of([7; 32], 1_000, 4_600, b"header.payload"))
}

fn any_entry() -> impl Strategy<Value = Entry> {
    let digest = any::<[u8; 32]>;
    prop_oneof![
        (
            ".{0,40}",
            any::<u64>(),
            digest(),
            proptest::option::of(digest()),
            proptest::option::of((".{0,80}", ".{0,400}")),
            proptest::option::of(any::<u8>().prop_map(|byte| vec![byte; COSIGNING_KEY_BYTES]))
        )
            .prop_map(
                |(software, started_at, policy_digest, evidence_digest, p, cosigning_key)| {
                    Entry::Genesis(Genesis {
                        software,
                        started_at,
                        policy_digest,
                        evidence_digest,
                        predecessor: p.map(|(vkey, checkpoint)| Predecessor { vkey, checkpoint }),
                        cosigning_key,
                    })
                }
            ),
        (any::<u64>(), digest())
            .prop_map(|(version, digest)| Entry::Policy(PolicyVersion { version, digest })),
        (
            ".{0,20}",
            ".{0,60}",
            ".{0,200}",
            digest(),
            any::<(u64, u64, u64)>(),
            prop_oneof![Just(Start::Led), Just(Start::First), Just(Start::Replacement)]
        )
            .prop_map(
                |(realm, issuer, jwk, kid, (nbf, signs_until, max_lifetime_s), start)| {
                    Entry::Announcement(Announcement {
                        realm,
                        issuer,
                        jwk,
                        kid,
                        algorithm: "ES256".into(),
                        nbf,
                        signs_until,
                        max_lifetime_s,
                        start,
                    })
                }
            ),
        (digest(), any::<u64>(), any::<u64>(), digest())
            .prop_map(|(kid, iat, exp, digest)| Entry::Token(TokenEntry { kid, iat, exp, digest })),
        (
            any::<u64>(),
            prop_oneof![
                Just(VoidReason::NotCommitted),
                Just(VoidReason::TooLate),
                Just(VoidReason::KeyCompromised),
                Just(VoidReason::SigningFailed)
            ]
        )
            .prop_map(|(index, reason)| Entry::Void(Void { index, reason })),
        (digest(), any::<u64>(), ".{0,99}")
            .prop_map(|(kid, at, reason)| Entry::Compromise(Compromise { kid, at, reason })),
        (digest(), any::<u64>())
            .prop_map(|(kid, signs_until)| Entry::Narrowing(Narrowing { kid, signs_until })),
        (".{0,20}", ".{0,60}", ".{1,80}", ".{0,200}", any::<(u64, u64, bool)>()).prop_map(
            |(realm, issuer, kid, jwk, (at, until, in_discovery))| {
                Entry::Imported(Imported { realm, issuer, kid, jwk, at, until, in_discovery })
            }
        ),
        (any::<(u64, bool)>(), digest(), digest(), digest()).prop_map(
            |((at, accepted), evidence, policy, result)| {
                Entry::Appraised(Appraised { at, evidence, policy, accepted, result })
            }
        ),
        (any::<[u8; 16]>(), any::<[u64; 4]>(), digest()).prop_map(
            |(log, [number, first, records, hour], digest)| Entry::AuditSegment(AuditSegment {
                log,
                number,
                first,
                records,
                hour,
                digest
            })
        ),
        (any::<[u8; 16]>(), any::<[u64; 4]>()).prop_map(|(log, [first, segments, before, at])| {
            Entry::AuditRemoval(AuditRemoval { log, first, segments, before, at })
        }),
    ]
}

/// What decodes at all is what encoding makes of it.
pub(crate) fn accepted_is_the_one_encoding<T>(
    bytes: &[u8],
    decode: fn(&[u8]) -> Result<T, Error>,
    encode: fn(&T) -> Result<Vec<u8>, Error>,
) -> Result<(), TestCaseError> {
    if let Ok(entry) = decode(bytes) {
        prop_assert_eq!(encode(&entry).unwrap(), bytes);
    }
    Ok(())
}

/// One byte of them is another.
pub(crate) fn flipped(bytes: &[u8], at: prop::sample::Index, flip: u8) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    let at = at.index(bytes.len());
    bytes[at] ^= flip;
    bytes
}

proptest! {
    #[test]
    fn every_entry_survives_its_encoding(entry in any_entry()) {
        let bytes = entry.encode().unwrap();
        prop_assert_eq!(Entry::decode(&bytes).unwrap(), entry);
    }

    #[test]
    fn accepted_bytes_are_the_one_encoding(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        accepted_is_the_one_encoding(&bytes, Entry::decode, Entry::encode)?;
    }

    #[test]
    fn a_changed_byte_never_decodes_to_the_same_entry(entry in any_entry(), at in any::<prop::sample::Index>(), flip in 1u8..) {
        let bytes = flipped(&entry.encode().unwrap(), at, flip);
        prop_assert_ne!(Entry::decode(&bytes).ok(), Some(entry));
    }
}

#[test]
fn a_token_entry_is_these_bytes() {
    // The published format: a change here breaks every relying party.
    let hex: String = token().encode().unwrap().iter().map(|b| format!("{b:02x}")).collect();
    let digest: String = sha256(b"header.payload").iter().map(|b| format!("{b:02x}")).collect();
    assert_eq!(hex, format!("85035820{}1903e81911f85820{digest}", "07".repeat(32)));
}

#[test]
fn longer_integers_are_refused() {
    let mut bytes = token().encode().unwrap();
    // Kind 3 as a two-byte integer: the same value, another encoding.
    bytes.splice(1..2, [0x18, 0x03]);
    assert_eq!(Entry::decode(&bytes), Err(Error::NotDeterministic));
}

#[test]
fn trailing_bytes_are_refused() {
    let mut bytes = token().encode().unwrap();
    bytes.push(0);
    assert_eq!(Entry::decode(&bytes), Err(Error::NotDeterministic));
}

#[test]
fn unknown_kinds_say_so() {
    assert_eq!(Entry::decode(&[0x81, 0x18, 0x63]), Err(Error::UnknownKind(99)));
}

#[test]
fn wrong_shapes_say_so() {
    assert!(matches!(Entry::decode(&[]), Err(Error::Shape(_))));
    assert!(matches!(Entry::decode(&[0x81, 0x03]), Err(Error::Shape(_))));
    assert!(matches!(Entry::decode(b"\x84\x03"), Err(Error::Shape(_))));
}

#[test]
fn oversize_entries_are_refused_both_ways() {
    let huge = Entry::Compromise(Compromise { kid: [0; 32], at: 0, reason: "x".repeat(70_000) });
    assert!(matches!(huge.encode(), Err(Error::TooLarge(_))));
    assert!(matches!(Entry::decode(&vec![0; 70_000]), Err(Error::TooLarge(70_000))));
}
