//! Keys and JWKs that several test modules share.

use std::sync::LazyLock;

use serde_json::{Map, Value};

use crate::{Algorithm, RsaBits, SigningKey};

static KEYS: LazyLock<Vec<SigningKey>> = LazyLock::new(|| {
    Algorithm::ALL
        .into_iter()
        .map(|algorithm| SigningKey::generate(algorithm, RsaBits::B2048).unwrap())
        .collect()
});

/// One key for each algorithm, generated once per test run.
pub(crate) fn key(algorithm: Algorithm) -> &'static SigningKey {
    KEYS.iter().find(|key| key.public().algorithm() == algorithm).unwrap()
}

/// The key's JWK with some members replaced, or removed where the value is null.
pub(crate) fn jwk_with(algorithm: Algorithm, changes: &[(&str, Value)]) -> Map<String, Value> {
    let mut jwk = key(algorithm).public().jwk();
    for (name, value) in changes {
        match value {
            Value::Null => jwk.remove(*name),
            value => jwk.insert((*name).to_owned(), value.clone()),
        };
    }
    jwk
}
