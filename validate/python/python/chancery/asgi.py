"""Bearer tokens for ASGI applications: a middleware, and a dependency for FastAPI.

Both take the token from the header `Authorization`, judge it, and answer as RFC 6750, section 3
says. Whoever sent the token learns nothing but `invalid_token`; the code and the detail of the
rejection go to the logger `chancery.asgi`.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from inspect import Parameter, Signature
from typing import Any, NamedTuple

from chancery._rejection import Rejection, Unavailable
from chancery._validator import Validator

__all__ = ["Bearer", "BearerMiddleware"]

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

logger = logging.getLogger("chancery.asgi")

RETRY_AFTER_S = 5
"""What `Retry-After` says by default: longer than a key set's fetch and a log's publishing take."""

# RFC 6749, section 3.3, and what fits between the quotes of a header (RFC 9110, section 5.6.4).
_SCOPE_TOKEN = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]+")
_REALM = re.compile(r'[ !#-\[\]-~]*')
# RFC 6455, section 7.4.1: what the endpoint received violates its policy.
_WEBSOCKET_POLICY_VIOLATION = 1008


class BearerMiddleware:
    """Lets only requests with a good token through to `app`.

    The claims stand in `scope["state"]["token"]`, which Starlette and FastAPI show as
    `request.state.token`. WebSocket connections are judged before they are accepted. Paths in
    `open_paths` need no token; they are compared exactly with `scope["path"]`. Put it inside a CORS
    middleware, which answers preflight requests: these carry no token.
    """

    def __init__(
        self,
        app: App,
        validator: Validator,
        *,
        required_scope: str | Iterable[str] = (),
        open_paths: Iterable[str] = (),
        realm: str | None = None,
        retry_after: int = RETRY_AFTER_S,
        state_key: str = "token",
    ) -> None:
        self.app = app
        self.validator = validator
        self.required = _scope_tokens(required_scope)
        self.open_paths = frozenset([open_paths] if isinstance(open_paths, str) else open_paths)
        self.answers = _Answers(realm, retry_after)
        self.state_key = state_key

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket") or scope["path"] in self.open_paths:
            await self.app(scope, receive, send)
            return
        claims = await _judge(self.validator, scope["headers"], self.required, self.answers)
        if isinstance(claims, _Answer):
            await claims.send(scope, receive, send)
            return
        scope.setdefault("state", {})[self.state_key] = claims
        await self.app(scope, receive, send)


class Bearer:
    """A dependency of FastAPI that gives the claims of a request's token.

    ::

        bearer = Bearer(validator)

        @app.get("/orders")
        async def orders(token: Annotated[dict, Security(bearer, scopes=["orders:read"])]): ...

    It takes part in OpenAPI as a bearer scheme, and works for WebSocket routes too. `scope` is
    demanded everywhere, the `scopes` of FastAPI's `Security` beside it.
    """

    def __new__(cls, *arguments: Any, **options: Any) -> Bearer:
        return super().__new__(_fastapi_class(cls))

    def __init__(
        self,
        validator: Validator,
        scope: str | Iterable[str] = (),
        *,
        realm: str | None = None,
        retry_after: int = RETRY_AFTER_S,
    ) -> None:
        self.validator = validator
        self.required = _scope_tokens(scope)
        self.answers = _Answers(realm, retry_after)

    async def __call__(self, connection: Any, security_scopes: Any = None) -> dict[str, Any]:
        required = self.required
        if security_scopes is not None:
            required = required + _scope_tokens(security_scopes.scopes)
        headers = connection.scope["headers"]
        claims = await _judge(self.validator, headers, required, self.answers)
        if isinstance(claims, _Answer):
            raise claims.exception(connection.scope)
        return claims


def _fastapi_class(cls: type[Bearer]) -> type[Bearer]:
    """`cls` with what FastAPI recognizes dependencies and security schemes by.

    FastAPI is imported here, by whoever uses the dependency, so that the middleware works without.
    """
    known = cls.__dict__.get("_fastapi")
    if known is not None:
        return known  # type: ignore[no-any-return]
    from fastapi.openapi.models import HTTPBearer
    from fastapi.security import SecurityScopes
    from fastapi.security.base import SecurityBase
    from starlette.requests import HTTPConnection

    parameter = Parameter.POSITIONAL_OR_KEYWORD
    members = {
        "_fastapi": None,
        "__doc__": cls.__doc__,
        "__module__": cls.__module__,
        "__qualname__": cls.__qualname__,
        "model": HTTPBearer(bearerFormat="JWT"),
        "scheme_name": "Bearer",
        "__signature__": Signature(
            [
                Parameter("connection", parameter, annotation=HTTPConnection),
                Parameter("security_scopes", parameter, annotation=SecurityScopes),
            ]
        ),
    }
    made = type(cls.__name__, (cls, SecurityBase), members)
    made._fastapi = made  # type: ignore[attr-defined]
    cls._fastapi = made  # type: ignore[attr-defined]
    return made


async def _judge(
    validator: Validator,
    headers: Iterable[tuple[bytes, bytes]],
    required: tuple[str, ...],
    answers: _Answers,
) -> dict[str, Any] | _Answer:
    """The claims of the request's token, or what to answer instead."""
    values = [value for name, value in headers if name.lower() == b"authorization"]
    if len(values) > 1:
        return answers.invalid_request()
    scheme, _, token = (values[0] if values else b"").strip(b" \t").partition(b" ")
    if scheme.lower() != b"bearer":
        return answers.no_token()
    token = token.strip(b" ")
    if not token:
        return answers.invalid_request()
    try:
        claims = await validator.validate_async(token)
    except Unavailable as rejection:
        logger.warning("token not judged: %s", rejection)
        return answers.unavailable()
    except Rejection as rejection:
        logger.info("token rejected: %s", rejection)
        return answers.invalid_token()
    granted = _granted(claims.get("scope"))
    missing = [one for one in required if one not in granted]
    if missing:
        logger.info("token of `%s` lacks scope: %s", claims.get("sub"), " ".join(missing))
        return answers.insufficient_scope(required)
    return claims


def _granted(scope: object) -> list[str]:
    """What a token grants: scope tokens, each one space apart (RFC 6749, section 3.3).

    Any other text grants nothing: readers that split it differently would grant differently.
    """
    tokens = scope.split(" ") if isinstance(scope, str) else []
    return tokens if all(_SCOPE_TOKEN.fullmatch(token) for token in tokens) else []


class _Answer(NamedTuple):
    """A refusal, as it goes to whoever sent the request."""

    status: int
    error: str
    headers: dict[str, str]

    async def send(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            extensions = scope.get("extensions") or {}
            if "websocket.http.response" not in extensions:
                # Closing before accepting makes the server answer the handshake with 403.
                await receive()
                await send({"type": "websocket.close", "code": _WEBSOCKET_POLICY_VIOLATION})
                return
            prefix = "websocket.http.response"
        else:
            prefix = "http.response"
        body = json.dumps({"error": self.error}).encode()
        headers = {
            **self.headers,
            "Content-Type": "application/json",
            "Content-Length": str(len(body)),
        }
        encoded = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
        await send({"type": f"{prefix}.start", "status": self.status, "headers": encoded})
        await send({"type": f"{prefix}.body", "body": body})

    def exception(self, scope: Scope) -> Exception:
        from starlette.exceptions import HTTPException, WebSocketException

        if scope["type"] == "websocket":
            return WebSocketException(_WEBSOCKET_POLICY_VIOLATION, self.error)
        return HTTPException(self.status, self.error, self.headers)


class _Answers:
    """The refusals of RFC 6750, section 3."""

    def __init__(self, realm: str | None, retry_after: int) -> None:
        if realm is not None and not _REALM.fullmatch(realm):
            raise ValueError(f"realm `{realm}` does not fit between the quotes of a header")
        if retry_after < 0:
            raise ValueError("retry_after is in seconds, 0 or more")
        self.realm = realm
        self.retry_after = retry_after

    def no_token(self) -> _Answer:
        """Section 3.1: who authenticated in no way, or another way, gets no error code."""
        return self._challenge(401, "unauthorized", {})

    def invalid_request(self) -> _Answer:
        return self._challenge(400, "invalid_request", {"error": "invalid_request"})

    def invalid_token(self) -> _Answer:
        return self._challenge(401, "invalid_token", {"error": "invalid_token"})

    def insufficient_scope(self, required: tuple[str, ...]) -> _Answer:
        told = {"error": "insufficient_scope", "scope": " ".join(dict.fromkeys(required))}
        return self._challenge(403, "insufficient_scope", told)

    def unavailable(self) -> _Answer:
        return _Answer(503, "temporarily_unavailable", {"Retry-After": str(self.retry_after)})

    def _challenge(self, status: int, error: str, told: dict[str, str]) -> _Answer:
        if self.realm is not None:
            told = {"realm": self.realm, **told}
        parameters = ", ".join(f'{name}="{value}"' for name, value in told.items())
        return _Answer(status, error, {"WWW-Authenticate": f"Bearer {parameters}".strip()})


def _scope_tokens(scope: str | Iterable[str]) -> tuple[str, ...]:
    """Scope tokens from text with spaces, or from one text each."""
    tokens = tuple(scope.split() if isinstance(scope, str) else scope)
    for token in tokens:
        if not isinstance(token, str) or not _SCOPE_TOKEN.fullmatch(token):
            raise ValueError(f"`{token}` is not a scope token (RFC 6749, section 3.3)")
    return tokens
