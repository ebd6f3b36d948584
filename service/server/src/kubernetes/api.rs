//! The messages of `v1.ExternalJWTSigner`, as `proto/externaljwt.proto` tells them. Written out, so that
//! no build needs a protocol compiler; a test holds them to that file.

/// Path of the method that signs.
pub const SIGN: &str = "/v1.ExternalJWTSigner/Sign";
/// Path of the method that lists keys.
pub const FETCH_KEYS: &str = "/v1.ExternalJWTSigner/FetchKeys";
/// Path of the method that is asked once.
pub const METADATA: &str = "/v1.ExternalJWTSigner/Metadata";

/// Claims to sign.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct SignJwtRequest {
    /// The token's second part, base64url.
    #[prost(string, tag = "1")]
    pub claims: String,
}

/// What makes a token of them.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct SignJwtResponse {
    /// The token's first part, base64url.
    #[prost(string, tag = "1")]
    pub header: String,
    /// Its third part, base64url.
    #[prost(string, tag = "2")]
    pub signature: String,
}

/// Nothing.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct FetchKeysRequest {}

/// The keys that tokens are verified with.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct FetchKeysResponse {
    /// At least one.
    #[prost(message, repeated, tag = "1")]
    pub keys: Vec<Key>,
    /// When they last changed.
    #[prost(message, optional, tag = "2")]
    pub data_timestamp: Option<Timestamp>,
    /// Seconds after which to ask again.
    #[prost(int64, tag = "3")]
    pub refresh_hint_seconds: i64,
}

/// `google.protobuf.Timestamp`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, prost::Message)]
pub struct Timestamp {
    /// Unix seconds.
    #[prost(int64, tag = "1")]
    pub seconds: i64,
    /// Nanoseconds of that second.
    #[prost(int32, tag = "2")]
    pub nanos: i32,
}

/// One key.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Key {
    /// Its `kid`.
    #[prost(string, tag = "1")]
    pub key_id: String,
    /// DER SubjectPublicKeyInfo (RFC 5280 section 4.1).
    #[prost(bytes = "vec", tag = "2")]
    pub key: Vec<u8>,
    /// Verifies, but is in no discovery document and signs nothing.
    #[prost(bool, tag = "3")]
    pub exclude_from_oidc_discovery: bool,
}

/// Nothing.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct MetadataRequest {}

/// What the API server wants to know at its start.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct MetadataResponse {
    /// The longest lifetime of a token.
    #[prost(int64, tag = "1")]
    pub max_token_expiration_seconds: i64,
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::*;

    const PROTO: &str = include_str!("../../proto/externaljwt.proto");

    /// Field numbers of one message, by name.
    fn fields(message: &str) -> Vec<(String, u32)> {
        let body = PROTO.split(&format!("message {message} {{")).nth(1).unwrap();
        let lines = body.split('}').next().unwrap().lines().map(str::trim);
        let fields = lines.filter(|l| l.ends_with(';') && !l.starts_with("//"));
        let field = |line: &str| {
            let (left, number) = line.trim_end_matches(';').split_once(" = ").unwrap();
            (left.rsplit(' ').next().unwrap().to_owned(), number.parse().unwrap())
        };
        fields.map(field).collect()
    }

    fn is(message: &str, expected: &[(&str, u32)]) {
        let expected: Vec<_> = expected.iter().map(|(n, i)| ((*n).to_owned(), *i)).collect();
        assert_eq!(fields(message), expected, "{message}");
    }

    #[test]
    fn the_messages_are_those_of_the_contract_octet_by_octet() {
        is("SignJWTRequest", &[("claims", 1)]);
        let request = SignJwtRequest { claims: "e30".into() };
        assert_eq!(request.encode_to_vec(), b"\x0a\x03e30");
        is("SignJWTResponse", &[("header", 1), ("signature", 2)]);
        let response = SignJwtResponse { header: "a".into(), signature: "b".into() };
        assert_eq!(response.encode_to_vec(), b"\x0a\x01a\x12\x01b");
        is("FetchKeysRequest", &[]);
        is("FetchKeysResponse", &[("keys", 1), ("data_timestamp", 2), ("refresh_hint_seconds", 3)]);
        is("Key", &[("key_id", 1), ("key", 2), ("exclude_from_oidc_discovery", 3)]);
        let key = Key { key_id: "k".into(), key: vec![7], exclude_from_oidc_discovery: true };
        let response = FetchKeysResponse {
            keys: vec![key],
            data_timestamp: Some(Timestamp { seconds: 5, nanos: 6 }),
            refresh_hint_seconds: 30,
        };
        assert_eq!(
            response.encode_to_vec(),
            b"\x0a\x08\x0a\x01k\x12\x01\x07\x18\x01\x12\x04\x08\x05\x10\x06\x18\x1e"
        );
        is("MetadataResponse", &[("max_token_expiration_seconds", 1)]);
        let response = MetadataResponse { max_token_expiration_seconds: 600 };
        assert_eq!(response.encode_to_vec(), b"\x08\xd8\x04");
        for path in [SIGN, FETCH_KEYS, METADATA] {
            let (service, method) = path.trim_start_matches('/').split_once('/').unwrap();
            let (package, name) = service.split_once('.').unwrap();
            assert!(PROTO.contains(&format!("package {package};")));
            assert!(PROTO.contains(&format!("service {name} {{")));
            assert!(PROTO.contains(&format!("rpc {method}({method}")) || path == SIGN);
        }
    }
}
