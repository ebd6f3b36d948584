//! Answers that carry tokens. They are most of what the service writes, so they are written as text
//! at once and not built up as JSON values first.

use axum::body::Body;
use axum::http::{HeaderValue, header};
use axum::response::Response;
use serde::Serialize;

use crate::issue::Issued;

/// Room for the members beside a token.
const MEMBERS_BYTES: usize = 192;

/// A successful answer of the token endpoint (RFC 6749 section 5.1).
#[derive(Serialize)]
struct Granted<'a> {
    access_token: &'a str,
    token_type: &'static str,
    expires_in: u64,
    /// Required when it differs from what was asked for; always useful.
    #[serde(skip_serializing_if = "str::is_empty")]
    scope: &'a str,
}

/// The answer to a signed issuance request.
#[derive(Serialize)]
pub struct Batch {
    tokens: Vec<Item>,
}

/// What became of one token of a signed issuance request.
#[derive(Serialize)]
#[serde(untagged)]
pub enum Item {
    /// Released.
    Issued {
        /// The JWS.
        access_token: String,
        /// Lifetime in seconds.
        expires_in: u64,
        /// Index of its entry in the log that `jti` names.
        index: u64,
        /// Scope values, separated by spaces.
        #[serde(skip_serializing_if = "String::is_empty")]
        scope: String,
        /// Its C2SP tlog-proof, where asked for.
        #[serde(skip_serializing_if = "Option::is_none")]
        proof: Option<String>,
    },
    /// The policy said no.
    Refused {
        /// Stable reason code.
        error: String,
        /// Explanation.
        error_description: String,
    },
}

impl Item {
    /// A released token, with its proof where asked for.
    pub fn issued(issued: Issued, proof: Option<String>) -> Self {
        Item::Issued {
            access_token: issued.token,
            expires_in: issued.lifetime_s,
            index: issued.index,
            scope: issued.scope,
            proof,
        }
    }

    fn room(&self) -> usize {
        let text = match self {
            Item::Issued { access_token, scope, proof, .. } => {
                let proof = proof.as_ref().map_or(0, String::len);
                access_token.len().saturating_add(scope.len()).saturating_add(proof)
            }
            Item::Refused { error_description, .. } => error_description.len(),
        };
        text.saturating_add(MEMBERS_BYTES)
    }
}

/// The answer of the token endpoint.
pub fn granted(issued: &Issued) -> Response {
    let body = Granted {
        access_token: &issued.token,
        token_type: "Bearer",
        expires_in: issued.lifetime_s,
        scope: &issued.scope,
    };
    let mut response = json(&body, issued.token.len().saturating_add(MEMBERS_BYTES));
    response.headers_mut().insert(header::PRAGMA, HeaderValue::from_static("no-cache"));
    response
}

/// The answer to a signed issuance request.
pub fn batch(tokens: Vec<Item>) -> Response {
    let room = tokens.iter().map(Item::room).fold(MEMBERS_BYTES, usize::saturating_add);
    json(&Batch { tokens }, room)
}

fn json(body: &impl Serialize, room: usize) -> Response {
    let mut text = Vec::with_capacity(room);
    // Strings and numbers always become JSON, and a vector takes it.
    let _ = serde_json::to_writer(&mut text, body);
    let mut response = Response::new(Body::from(text));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    // RFC 6749 section 5.1: nobody keeps a token on the way.
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn issued(scope: &str) -> Issued {
        Issued {
            token: "a.b.c".into(),
            lifetime_s: 60,
            scope: scope.into(),
            index: 7,
            jti: "log.7.r".into(),
        }
    }

    async fn read(response: Response) -> Value {
        let headers = response.headers();
        assert_eq!(headers.get(header::CONTENT_TYPE).unwrap(), "application/json");
        assert_eq!(headers.get(header::CACHE_CONTROL).unwrap(), "no-store");
        let body = axum::body::to_bytes(response.into_body(), 65_536).await.unwrap();
        serde_json::from_slice(&body).unwrap()
    }

    #[tokio::test]
    async fn a_token_is_answered_as_rfc_6749_says() {
        let body = read(granted(&issued(""))).await;
        let plain = json!({"access_token": "a.b.c", "token_type": "Bearer", "expires_in": 60});
        assert_eq!(body, plain);
        let body = read(granted(&issued("read \"x\""))).await;
        assert_eq!(body.get("scope"), Some(&Value::from("read \"x\"")));
    }

    #[tokio::test]
    async fn a_batch_lists_tokens_and_refusals_in_order() {
        let no =
            Item::Refused { error: "scope_not_granted".into(), error_description: "no".into() };
        let proof = Some("c2sp.org/tlog-proof@v1\n".to_owned());
        let all = vec![Item::issued(issued("read"), None), no, Item::issued(issued(""), proof)];
        let expected = json!({"tokens": [
            {"access_token": "a.b.c", "expires_in": 60, "index": 7, "scope": "read"},
            {"error": "scope_not_granted", "error_description": "no"},
            {"access_token": "a.b.c", "expires_in": 60, "index": 7,
             "proof": "c2sp.org/tlog-proof@v1\n"},
        ]});
        assert_eq!(read(batch(all)).await, expected);
    }
}
