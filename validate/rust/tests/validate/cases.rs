//! The cases of the corpus, by topic.

mod accepted;
mod claims;
mod form;
mod header;
mod keys;
mod profiles;
mod signature;
mod times;

use crate::corpus::Case;

/// Each file of the corpus: its name, what it is about, its cases.
pub fn all() -> Vec<(&'static str, &'static str, Vec<Case>)> {
    vec![
        ("accepted", "Tokens that must be accepted, each at some edge.", accepted::cases()),
        ("form", "Texts that are not one strict compact JWS.", form::cases()),
        ("header", "Headers that must not be believed.", header::cases()),
        ("keys", "Keys and key sets that must not be believed.", keys::cases()),
        ("signature", "Signatures that are not the key's over this token.", signature::cases()),
        ("claims", "Claims that are missing, malformed or not meant for here.", claims::cases()),
        (
            "profiles",
            "Other issuers: profiles `oidc` and `entra`, and several issuers.",
            profiles::cases(),
        ),
        ("times", "Times that are out of bounds, by one second where possible.", times::cases()),
    ]
}
