//! What the three methods answer.
//!
//! | method | answers | `UNAVAILABLE` |
//! |---|---|---|
//! | Sign | header and signature of the claims as they came, logged before | within `answer_within_ms` of a hung, slow or missing signer |
//! | FetchKeys | every key that a live token may need, with the time of the last change | before the realm ever had a key: an empty list would end the API server |
//! | Metadata | the longest lifetime that the policy and every key that signs now or next allow: kube-apiserver asks once, at its start | when the realm left the policy |
//!
//! An empty list would also have the API server go on believing the keys that it knows. Where every key
//! of the realm was declared compromised and the signer has not made the next one, because it hangs,
//! FetchKeys lists one key that nobody has the private half of, excluded from discovery.
//!
//! A refusal of the policy is `PERMISSION_DENIED`, a request that is not as it should be
//! `INVALID_ARGUMENT`; each begins with the stable reason code. kube-apiserver shows the text to
//! whoever asked for the token.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::routing::post;
use chancery_policy::kubernetes::MAX_CLAIMS_CHARS;
use chancery_policy::{RealmDocument, RefusalCode};
use chancery_signer_api::{IssueRequest, Proof};
use tonic::server::{Grpc, UnaryService};
use tonic::{Code, Status};
use tonic_prost::ProstCodec;

use super::Settings;
use super::api::{
    FETCH_KEYS, FetchKeysRequest, FetchKeysResponse, Key, METADATA, MetadataRequest,
    MetadataResponse, SIGN, SignJwtRequest, SignJwtResponse,
};
use super::keys::{self, LastChange};
use crate::audit::Context;
use crate::issue::{Issued, Verdict};
use crate::listen::RequestId;
use crate::service::Service;

/// The largest request: claims of the greatest length and what gRPC puts around them.
const MAX_REQUEST_BYTES: usize = MAX_CLAIMS_CHARS + 1_024;
/// After a refusal that the next second mends, such as between two keys, the same is asked again.
const ASK_AGAIN_AFTER: Duration = Duration::from_millis(50);

/// What the methods share.
struct Endpoint {
    service: Arc<Service>,
    settings: Settings,
    changed: Mutex<LastChange>,
    /// Listed where the list would be empty.
    nobodys: OnceLock<Option<Key>>,
}

/// The three methods; every other path is unknown to gRPC.
pub fn router(service: Arc<Service>, settings: Settings) -> Router {
    let endpoint =
        Endpoint { service, settings, changed: Mutex::default(), nobodys: OnceLock::new() };
    Router::new()
        .route(SIGN, post(sign))
        .route(FETCH_KEYS, post(fetch_keys))
        .route(METADATA, post(metadata))
        .method_not_allowed_fallback(unknown)
        .fallback(unknown)
        .with_state(Arc::new(endpoint))
}

type App = State<Arc<Endpoint>>;
type Answer = axum::http::Response<tonic::body::Body>;

async fn sign(State(endpoint): App, request: Request) -> Answer {
    let id = request.extensions().get::<RequestId>().copied();
    let context = Context::local(id, &endpoint.settings.realm, request.headers()).encode();
    let of = Arc::clone(&endpoint);
    let sign = move |request: SignJwtRequest| async move {
        let begun = Instant::now();
        let answer = of.sign(request.claims, context).await;
        of.service.metrics.kubernetes.signed(begun.elapsed());
        answer
    };
    endpoint.counted("Sign", answer(sign, request).await)
}

async fn fetch_keys(State(endpoint): App, request: Request) -> Answer {
    let of = Arc::clone(&endpoint);
    let fetch = move |_: FetchKeysRequest| async move { of.fetch_keys() };
    endpoint.counted("FetchKeys", answer(fetch, request).await)
}

async fn metadata(State(endpoint): App, request: Request) -> Answer {
    let of = Arc::clone(&endpoint);
    let metadata = move |_: MetadataRequest| async move { of.metadata() };
    endpoint.counted("Metadata", answer(metadata, request).await)
}

async fn unknown(State(endpoint): App) -> Answer {
    let status = Status::unimplemented("no such method; this is v1.ExternalJWTSigner");
    endpoint.counted("unknown", status.into_http())
}

impl Endpoint {
    async fn sign(&self, claims: String, context: Vec<u8>) -> Result<SignJwtResponse, Status> {
        if claims.len() > MAX_CLAIMS_CHARS {
            let what = format!("claims of more than {MAX_CLAIMS_CHARS} characters");
            return Err(Status::invalid_argument(what));
        }
        let within = self.settings.answer_within();
        let deadline = Instant::now().checked_add(within).unwrap_or_else(Instant::now);
        loop {
            let request = IssueRequest {
                realm: self.settings.realm.clone(),
                context: context.clone().into(),
                proof: Proof::Kubernetes { claims: claims.clone() },
            };
            let issue = self.service.issuer.issue(request);
            let Ok(issued) = tokio::time::timeout_at(deadline.into(), issue).await else {
                return Err(Status::unavailable(format!(
                    "the signer did not answer within {} ms",
                    within.as_millis()
                )));
            };
            let verdict = issued.map_err(|e| Status::unavailable(e.why))?.pop();
            match verdict {
                Some(Verdict::Issued(issued)) => return take_apart(&issued, &claims),
                Some(Verdict::Refused { code, detail }) => {
                    let refused = status_of(&code, &detail);
                    let again = Instant::now().checked_add(ASK_AGAIN_AFTER);
                    if !is_passing(&code) || again.is_none_or(|again| again >= deadline) {
                        return Err(refused);
                    }
                    tokio::time::sleep(ASK_AGAIN_AFTER).await;
                }
                None => return Err(Status::internal("the signer answered nothing")),
            }
        }
    }

    fn fetch_keys(&self) -> Result<FetchKeysResponse, Status> {
        let realm = self.realm()?;
        let hint = self.settings.refresh_hint(realm.schedule.publish_lead_s);
        let mut changed = self.changed.lock().unwrap_or_else(PoisonError::into_inner);
        let served = self.service.keys.get(&realm.name);
        let had_keys = changed.is_stamped();
        let served = served.filter(|s| had_keys || s.has_own || s.has_fallen);
        let Some(served) = served else {
            return Err(Status::unavailable("the realm has no key yet; is a signer attached?"));
        };
        let mut keys = keys::of(&served);
        if keys.is_empty() {
            let nobodys = self.nobodys.get_or_init(keys::nobodys).clone();
            keys.push(nobodys.ok_or_else(|| Status::unavailable("the realm has no key left"))?);
        }
        let at = changed.stamp(&keys, SystemTime::now());
        drop(changed);
        self.service.metrics.kubernetes.fetched(crate::now());
        Ok(FetchKeysResponse {
            keys,
            data_timestamp: Some(at),
            refresh_hint_seconds: i64::try_from(hint).unwrap_or(i64::MAX),
        })
    }

    fn metadata(&self) -> Result<MetadataResponse, Status> {
        let longest = self.service.ceiling(&self.realm()?);
        let longest = i64::try_from(longest).unwrap_or(i64::MAX);
        Ok(MetadataResponse { max_token_expiration_seconds: longest })
    }

    /// The realm as the policy has it now.
    fn realm(&self) -> Result<RealmDocument, Status> {
        let realms = self.service.policy().document.realms;
        let realm = realms.into_iter().find(|realm| realm.name == self.settings.realm);
        realm.ok_or_else(|| {
            let realm = &self.settings.realm;
            Status::unavailable(format!("realm `{realm}` is no longer in the policy"))
        })
    }

    /// Counts an answer, that to a request which never reached its method too: it was too large, or no
    /// protobuf. Only a failure has its status in the header; success has it behind the message.
    fn counted(&self, method: &'static str, answer: Answer) -> Answer {
        let status = Status::from_header_map(answer.headers());
        let code = status.as_ref().map_or(Code::Ok, Status::code);
        self.service.metrics.kubernetes.answered(method, name_of(code));
        if let Some(status) = status {
            tracing::debug!(method, code = name_of(code), "kube-apiserver: {}", status.message());
        }
        answer
    }
}

/// Header and signature of a released token whose claims are those that were asked for.
fn take_apart(issued: &Issued, claims: &str) -> Result<SignJwtResponse, Status> {
    let parts = issued.token.split_once('.').and_then(|(header, rest)| {
        let signature = rest.strip_prefix(claims)?.strip_prefix('.')?;
        Some((header, signature))
    });
    match parts {
        Some((header, signature)) => {
            Ok(SignJwtResponse { header: header.to_owned(), signature: signature.to_owned() })
        }
        None => Err(Status::internal("the signer signed other claims than it was given")),
    }
}

/// Whether waiting a moment mends it.
fn is_passing(code: &str) -> bool {
    use RefusalCode as C;
    let parsed = RefusalCode::parse(code);
    matches!(parsed, Some(C::NoActiveKey | C::Voided | C::Deferred))
}

fn status_of(code: &str, detail: &str) -> Status {
    use RefusalCode as C;
    let text = format!("{code}: {detail}");
    match RefusalCode::parse(code) {
        Some(C::MalformedRequest | C::IssuedAtNotNow) => Status::invalid_argument(text),
        Some(parsed) if parsed.is_retryable() => Status::unavailable(text),
        Some(_) => Status::permission_denied(text),
        None => Status::internal(text),
    }
}

/// Names as gRPC spells them, for the metrics.
fn name_of(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::Unavailable => "UNAVAILABLE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        _ => "INTERNAL",
    }
}

/// Lets gRPC read the request and write what the method answers.
async fn answer<M, Q, A, F>(method: M, request: Request<Body>) -> Answer
where
    M: FnOnce(Q) -> F + Send + 'static,
    F: Future<Output = Result<A, Status>> + Send + 'static,
    Q: prost::Message + Default + Send + 'static,
    A: prost::Message + Default + Send + 'static,
{
    let mut grpc = Grpc::new(ProstCodec::<A, Q>::default())
        .apply_max_message_size_config(Some(MAX_REQUEST_BYTES), None);
    grpc.unary(Method(Some(method)), request).await
}

/// A method that is called once.
struct Method<M>(Option<M>);

impl<M, Q, A, F> UnaryService<Q> for Method<M>
where
    M: FnOnce(Q) -> F,
    F: Future<Output = Result<A, Status>> + Send + 'static,
    A: Send + 'static,
{
    type Response = A;
    type Future =
        Pin<Box<dyn Future<Output = Result<tonic::Response<A>, Status>> + Send + 'static>>;

    fn call(&mut self, request: tonic::Request<Q>) -> Self::Future {
        let answer = self.0.take().map(|method| method(request.into_inner()));
        Box::pin(async move {
            match answer {
                Some(answer) => answer.await.map(tonic::Response::new),
                None => Err(Status::internal("asked twice")),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_become_the_status_that_says_what_to_do() {
        use RefusalCode as C;
        let status = |code: C| status_of(code.as_str(), "why").code();
        assert_eq!(status(C::MalformedRequest), Code::InvalidArgument);
        assert_eq!(status(C::IssuedAtNotNow), Code::InvalidArgument);
        for code in [
            C::WrongIssuer,
            C::AudienceNotGranted,
            C::SubjectNotGranted,
            C::ClaimNotGranted,
            C::ClaimRequired,
            C::LifetimeNotGranted,
            C::WrongRealmKind,
            C::UnknownRealm,
        ] {
            assert_eq!(status(code), Code::PermissionDenied, "{code}");
        }
        for code in [C::NoActiveKey, C::ClockUntrusted, C::Voided, C::Deferred] {
            assert_eq!(status(code), Code::Unavailable, "{code}");
        }
        assert_eq!(status_of("new_code", "why").code(), Code::Internal);
        assert_eq!(status_of("wrong_issuer", "why").message(), "wrong_issuer: why");
        assert!(is_passing("no_active_key") && !is_passing("clock_untrusted"));
    }

    #[test]
    fn a_token_of_other_claims_is_not_passed_on() {
        let issued = |token: &str| Issued {
            token: token.into(),
            lifetime_s: 600,
            scope: String::new(),
            index: 0,
            jti: String::new(),
        };
        let parts = take_apart(&issued("h.claims.s"), "claims").unwrap();
        assert_eq!((parts.header.as_str(), parts.signature.as_str()), ("h", "s"));
        for token in ["h.claimsx.s", "h.claim.s", "claims.s", "", "h.claims"] {
            assert_eq!(take_apart(&issued(token), "claims").unwrap_err().code(), Code::Internal);
        }
    }
}
