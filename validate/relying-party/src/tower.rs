//! A tower layer that lets a request through only with an acceptable bearer token.
//!
//! ```no_run
//! # fn example(relying_party: chancery_relying_party::RelyingParty) {
//! use chancery_relying_party::tower::BearerLayer;
//!
//! let layer = BearerLayer::new(relying_party)
//!     .realm("orders")
//!     .scope("orders.read")
//!     .on_denial(|denial, request| {
//!         eprintln!("{} {}: {denial}", request.method, request.uri.path());
//!     });
//! # let _ = layer;
//! # }
//! ```
//!
//! The validated token is in the request's extensions, as a [`Token`]; with the feature `axum` it is
//! an extractor. Nothing of why a token was refused goes to its sender.

use std::fmt;
use std::future::Future;
use std::ops::Deref;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use chancery_validate::log::Verdict;
use chancery_validate::{Rejection, Validated};
use http::header::AUTHORIZATION;
use http::uri::PathAndQuery;
use http::{Request, Response, Uri, request};
use tower_layer::Layer;
use tower_service::Service;

use crate::bearer::{DEFAULT_REALM, Demands, Denial, holds_scope, token_of};
use crate::{Accepted, Judgement, RelyingParty};

/// A token that passed every check, as a request carries it. Only the layer makes one.
#[derive(Clone)]
pub struct Token(Arc<Accepted>);

impl Token {
    /// What the log said, if it was asked.
    #[must_use]
    pub fn log(&self) -> Option<&Verdict> {
        self.0.log.as_ref()
    }

    /// Whether the token's `scope` has this value.
    #[must_use]
    pub fn has_scope(&self, scope: &str) -> bool {
        holds_scope(self.0.token.claims().scope.unwrap_or(""), scope)
    }

    /// Demands a scope value, for routes that need more than their layer asks for.
    ///
    /// # Errors
    /// [`Denial::InsufficientScope`], which a handler returns as it is.
    pub fn require_scope(&self, scope: &str) -> Result<(), Denial> {
        if self.has_scope(scope) {
            return Ok(());
        }
        Err(Denial::InsufficientScope(scope.to_owned()))
    }
}

impl Deref for Token {
    type Target = Validated;

    fn deref(&self) -> &Validated {
        &self.0.token
    }
}

/// Names the token without its claims, which are personal data.
impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token").field("kid", &self.0.token.kid()).finish_non_exhaustive()
    }
}

/// In the extensions of a request that an optional layer let through without credentials.
#[derive(Clone, Debug)]
pub struct Anonymous(Arc<Gate>);

impl Anonymous {
    /// The realm to name where somebody demands a token after all.
    #[must_use]
    pub fn realm(&self) -> &str {
        &self.0.realm
    }
}

/// Hears of a denial: see [`BearerLayer::on_denial`].
type OnDenial = Arc<dyn Fn(&Denial, &request::Parts) + Send + Sync>;

/// What a layer was told.
#[derive(Clone)]
struct Gate {
    relying_party: RelyingParty,
    realm: String,
    demands: Demands,
    optional: bool,
    on_denial: Option<OnDenial>,
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gate")
            .field("realm", &self.realm)
            .field("demands", &self.demands)
            .field("optional", &self.optional)
            .finish_non_exhaustive()
    }
}

/// Makes services that demand a bearer token.
#[derive(Clone, Debug)]
pub struct BearerLayer {
    gate: Arc<Gate>,
}

impl BearerLayer {
    /// Demands a token that `relying_party` accepts.
    #[must_use]
    pub fn new(relying_party: RelyingParty) -> Self {
        let gate = Gate {
            relying_party,
            realm: DEFAULT_REALM.to_owned(),
            demands: Demands::default(),
            optional: false,
            on_denial: None,
        };
        Self { gate: Arc::new(gate) }
    }

    /// The realm that a request without credentials is told (RFC 9110, section 11.5); `api` if
    /// nothing is said. Quotes, backslashes and what is not printable ASCII are left out.
    #[must_use]
    pub fn realm(mut self, realm: impl Into<String>) -> Self {
        self.edit().realm = realm.into();
        self
    }

    /// Demands a scope value too; each call adds one.
    #[must_use]
    pub fn scope(mut self, scope: impl Into<String>) -> Self {
        self.edit().demands.scopes.push(scope.into());
        self
    }

    /// Demands that the token names this audience, where the relying party accepts several; each
    /// call adds one.
    #[must_use]
    pub fn audience(mut self, audience: impl Into<String>) -> Self {
        self.edit().demands.audiences.push(audience.into());
        self
    }

    /// Lets requests without credentials through, as [`Anonymous`]. A request with a token that is
    /// not acceptable is still denied.
    #[must_use]
    pub fn optional(mut self) -> Self {
        self.edit().optional = true;
        self
    }

    /// Hears of every denial, for logs and counters; the sender never does. The `Authorization`
    /// headers and the query, which may hold a token too (RFC 6750, section 2.3), are taken out of
    /// the request before, so that it can be logged. The extensions are as they came: the
    /// `OriginalUri` of axum has its query.
    #[must_use]
    pub fn on_denial(
        mut self,
        hear: impl Fn(&Denial, &request::Parts) + Send + Sync + 'static,
    ) -> Self {
        self.edit().on_denial = Some(Arc::new(hear));
        self
    }

    fn edit(&mut self) -> &mut Gate {
        Arc::make_mut(&mut self.gate)
    }
}

impl<S> Layer<S> for BearerLayer {
    type Service = BearerService<S>;

    fn layer(&self, inner: S) -> BearerService<S> {
        BearerService { inner, gate: self.gate.clone() }
    }
}

/// Lets requests with an acceptable bearer token through to `inner`.
#[derive(Clone, Debug)]
pub struct BearerService<S> {
    inner: S,
    gate: Arc<Gate>,
}

impl<S, B, R> Service<Request<B>> for BearerService<S>
where
    S: Service<Request<B>, Response = Response<R>> + Clone,
    R: Default,
{
    type Response = Response<R>;
    type Error = S::Error;
    type Future = ResponseFuture<S, B>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<B>) -> ResponseFuture<S, B> {
        let gate = &self.gate;
        let token = match token_of(request.headers(), request.uri().query()) {
            Ok(token) => token,
            Err(Denial::NoCredentials) if gate.optional => {
                request.extensions_mut().insert(Anonymous(gate.clone()));
                return self.admit(request);
            }
            Err(denial) => return ResponseFuture::denied(gate.clone(), denial, request),
        };
        // Nearly every token is decided by what is in memory, without a box and without waiting.
        match gate.relying_party.judge(token) {
            Judgement::Decided(Ok(accepted)) => match gate.demands.check(&accepted.token) {
                Ok(()) => {
                    request.extensions_mut().insert(Token(Arc::new(accepted)));
                    self.admit(request)
                }
                Err(denial) => ResponseFuture::denied(gate.clone(), denial, request),
            },
            Judgement::Decided(Err(rejection)) => {
                ResponseFuture::denied(gate.clone(), rejection.into(), request)
            }
            Judgement::NeedsIo => {
                let (relying_party, token) = (gate.relying_party.clone(), token.to_owned());
                let judgement = Box::pin(async move { relying_party.validate(&token).await });
                // The service that is ready goes with the request; its clone may not be.
                let clone = self.inner.clone();
                let inner = std::mem::replace(&mut self.inner, clone);
                let waiting = Some((inner, request));
                let gate = gate.clone();
                ResponseFuture { state: State::Judging { judgement, waiting, gate } }
            }
        }
    }
}

impl<S> BearerService<S> {
    fn admit<B>(&mut self, request: Request<B>) -> ResponseFuture<S, B>
    where
        S: Service<Request<B>>,
    {
        ResponseFuture { state: State::Admitted { future: self.inner.call(request) } }
    }
}

/// A judgement that waits for the network.
type Judging = Pin<Box<dyn Future<Output = Result<Accepted, Rejection>> + Send>>;

pin_project_lite::pin_project! {
    /// The answer to a request: the inner service's, or a denial.
    pub struct ResponseFuture<S, B>
    where
        S: Service<Request<B>>,
    {
        #[pin]
        state: State<S, B>,
    }
}

pin_project_lite::pin_project! {
    #[project = StateView]
    enum State<S, B>
    where
        S: Service<Request<B>>,
    {
        Denied { gate: Arc<Gate>, denial: Denial },
        Admitted { #[pin] future: S::Future },
        Judging { judgement: Judging, waiting: Option<(S, Request<B>)>, gate: Arc<Gate> },
    }
}

impl<S, B> ResponseFuture<S, B>
where
    S: Service<Request<B>>,
{
    fn denied(gate: Arc<Gate>, denial: Denial, request: Request<B>) -> Self {
        tell(&gate, &denial, request);
        Self { state: State::Denied { gate, denial } }
    }
}

fn tell<B>(gate: &Gate, denial: &Denial, request: Request<B>) {
    if let Some(hear) = &gate.on_denial {
        let (mut parts, _) = request.into_parts();
        parts.headers.remove(AUTHORIZATION);
        parts.uri = without_query(parts.uri);
        hear(denial, &parts);
    }
}

fn without_query(uri: Uri) -> Uri {
    if uri.query().is_none() {
        return uri;
    }
    let path = PathAndQuery::try_from(uri.path()).ok();
    let mut parts = uri.into_parts();
    // Without a path there is neither scheme nor authority that could go alone.
    let Some(path) = path else { return Uri::default() };
    parts.path_and_query = Some(path);
    Uri::from_parts(parts).unwrap_or_default()
}

impl<S, B, R> Future for ResponseFuture<S, B>
where
    S: Service<Request<B>, Response = Response<R>>,
    R: Default,
{
    type Output = Result<Response<R>, S::Error>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.project().state;
        loop {
            let next = match state.as_mut().project() {
                StateView::Denied { gate, denial } => {
                    return Poll::Ready(Ok(denial.response(&gate.realm)));
                }
                StateView::Admitted { future } => return future.poll(context),
                StateView::Judging { judgement, waiting, gate } => {
                    let judged = std::task::ready!(judgement.as_mut().poll(context));
                    // Nothing polls a future again after it was ready.
                    let Some((mut inner, mut request)) = waiting.take() else {
                        return Poll::Pending;
                    };
                    let judged = judged.map_err(Denial::from).and_then(|accepted| {
                        gate.demands.check(&accepted.token).map(|()| accepted)
                    });
                    match judged {
                        Ok(accepted) => {
                            request.extensions_mut().insert(Token(Arc::new(accepted)));
                            State::Admitted { future: inner.call(request) }
                        }
                        Err(denial) => {
                            tell(gate, &denial, request);
                            State::Denied { gate: gate.clone(), denial }
                        }
                    }
                }
            };
            state.set(next);
        }
    }
}
