//! [`Token`] as an axum extractor, and [`Denial`] as an answer.

use axum_core::extract::{FromRequestParts, OptionalFromRequestParts};
use axum_core::response::{IntoResponse, Response};
use http::StatusCode;
use http::request::Parts;

use crate::bearer::{DEFAULT_REALM, Denial};
use crate::tower::{Anonymous, Token};

/// Why a handler got no [`Token`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NoToken {
    /// The layer is optional and the request carried no token: answers 401 with a challenge.
    #[error("the request carries no token")]
    Anonymous {
        /// The realm of the challenge.
        realm: String,
    },
    /// No [`BearerLayer`](crate::tower::BearerLayer) is around the route: answers 500, because
    /// nobody asked for the token that the handler counts on.
    #[error("no `BearerLayer` is around this route; add it with `Router::layer`")]
    NoLayer,
}

impl IntoResponse for NoToken {
    fn into_response(self) -> Response {
        match self {
            Self::Anonymous { realm } => Denial::NoCredentials.response(&realm),
            Self::NoLayer => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
        }
    }
}

impl IntoResponse for Denial {
    fn into_response(self) -> Response {
        self.response(DEFAULT_REALM)
    }
}

fn find(parts: &Parts) -> Result<Token, NoToken> {
    if let Some(token) = parts.extensions.get::<Token>() {
        return Ok(token.clone());
    }
    Err(match parts.extensions.get::<Anonymous>() {
        Some(anonymous) => NoToken::Anonymous { realm: anonymous.realm().to_owned() },
        None => NoToken::NoLayer,
    })
}

impl<S: Sync> FromRequestParts<S> for Token {
    type Rejection = NoToken;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, NoToken> {
        find(parts)
    }
}

/// `Option<Token>` is none where an optional layer let the request through without credentials.
impl<S: Sync> OptionalFromRequestParts<S> for Token {
    type Rejection = NoToken;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Option<Self>, NoToken> {
        match find(parts) {
            Ok(token) => Ok(Some(token)),
            Err(NoToken::Anonymous { .. }) => Ok(None),
            Err(no_layer) => Err(no_layer),
        }
    }
}
