"""The front of the package: a validator, synchronous and for asyncio."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import threading
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from types import EllipsisType
from typing import TYPE_CHECKING, Any, Literal, ParamSpec, TypeVar

from chancery import _native

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["Validator"]

P = ParamSpec("P")
T = TypeVar("T")

JwkSet = str | bytes | Mapping[str, Any]

logger = logging.getLogger("chancery")

# Coroutines that wait at once for a key set or a log, in threads of their own, so that a slow issuer
# does not take the event loop's. Those beyond wait in line; fetches for one issuer are shared.
_WAITING_THREADS = 16


class Validator(_native.NativeValidator):
    """Judges tokens. It is safe to share between threads, event loops and forked processes.

    Key sets are found by discovery, fetched once and kept fresh. With `jwks` nothing is fetched.

    Args:
        issuer: The issuer's URL, or several. `iss` and the key's `issuer` must both equal the one
            whose key set holds the key, octet by octet.
        audience: The relying party's own name, or several; one of them must be in `aud`.
        profile: `strict` for Chancery's tokens; `oidc` for ordinary OpenID providers; `entra` for
            Microsoft Entra ID. `docs/rejections.md` has the table of differences.
        jwks: The JWK Set as it was served, or parsed; for several issuers a mapping from issuer to
            its set. It stays as it is.
        jwks_uri: Where the JWK Set is, without discovery; for several issuers a mapping.
        metadata_uri: Where the issuer's metadata is, if not where the standards say; for several
            issuers a mapping.
        leeway: Seconds of tolerance for `exp`, `nbf` and an `iat` in the future.
        max_lifetime: The longest accepted time from `iat` to `exp` in seconds; None for no bound.
            By default that of the profile: a day, for `entra` 28 hours.
        accepted_typ: Media types of which the header's `typ` must be one. By default those of the
            profile: `at+jwt`, beyond `strict` also `JWT`.
        allow_missing_typ: Whether a token may have no `typ`. By default as the profile says.
        algorithms: Algorithms that are accepted; by default all eight. The key decides which one is
            used, so this only narrows.
        tenants: Under `entra` the accepted tenants (`tid`).
        accept_eddsa: Whether a token may say `EdDSA` for an Ed25519 key.
        log: `report` or `require` that the token is in the log of its key's signer.
        log_lookup: How a token is found in its log: by the `address` in its `jti`, or by `digest`, for
            tokens of Kubernetes (with profile `oidc`).
        log_at: Where logs are: a URL or a folder that ends before `checkpoint`; `{log}` in it stands
            for a log's id. By default where the issuer's metadata says.
        attestation: `report` or `require` evidence about the key's signer.
        anchor: The trust anchor: one C2SP verifier key a line. Only keys that these logs announced
            are believed.
        cache: Verified tokens to remember; 0 for none. Time, key and policy are judged afresh.
        allow_plain_http: Whether `http:` URLs beyond this machine are fetched.
        root_certificates: Certificates in PEM that HTTPS servers must chain to, in place of the
            system's.
        bounds: Limits of fetching and keeping, by name; `Validator.default_bounds()` has them all.
        on_finding: Called with a `dict` for each token against which its log speaks, on a thread of
            its own: `verdict` (`pending`, `missing`, `forged`, `unknown`), `kid`, `claims`, and
            `told` with what proves it. By default findings are logged to `chancery`.

    Raises:
        ValueError: The settings contradict each other or cannot be met; the text says which.
        Rejection: `jwks` is refused; the code is `key_set_refused`.
        TypeError: A setting is of the wrong type.
    """

    def __new__(
        cls,
        *,
        issuer: str | Iterable[str],
        audience: str | Iterable[str],
        profile: Literal["strict", "oidc", "entra"] = "strict",
        jwks: JwkSet | Mapping[str, JwkSet] | None = None,
        jwks_uri: str | Mapping[str, str] | None = None,
        metadata_uri: str | Mapping[str, str] | None = None,
        leeway: int = 30,
        max_lifetime: int | EllipsisType | None = ...,
        accepted_typ: Iterable[str] | None = None,
        allow_missing_typ: bool | None = None,
        algorithms: Iterable[str] | None = None,
        tenants: Iterable[str] | None = None,
        accept_eddsa: bool = False,
        log: Literal["off", "report", "require"] = "off",
        log_lookup: Literal["address", "digest"] = "address",
        log_at: str | None = None,
        attestation: Literal["off", "report", "require"] = "off",
        anchor: str | None = None,
        cache: int = 0,
        allow_plain_http: bool = False,
        root_certificates: bytes | None = None,
        bounds: Mapping[str, float] | None = None,
        on_finding: Callable[[dict[str, Any]], object] | None = None,
    ) -> Self:
        issuers = _texts("issuer", issuer)
        return super().__new__(
            cls,
            {
                "issuers": issuers,
                "audiences": _texts("audience", audience),
                "profile": profile,
                "jwks": _key_sets(issuers, jwks),
                "jwks_uri": _per_issuer("jwks_uri", issuers, jwks_uri),
                "metadata_uri": _per_issuer("metadata_uri", issuers, metadata_uri),
                "leeway": leeway,
                "max_lifetime": None if max_lifetime is ... else max_lifetime,
                "unbounded_lifetime": max_lifetime is None,
                "accepted_typ": None if accepted_typ is None else _texts("typ", accepted_typ),
                "allow_missing_typ": allow_missing_typ,
                "algorithms": _texts("algorithms", algorithms or ()),
                "tenants": _texts("tenants", tenants or ()),
                "accept_eddsa": accept_eddsa,
                "log": log,
                "log_lookup": log_lookup,
                "log_at": log_at,
                "attestation": attestation,
                "anchor": anchor,
                "cache": cache,
                "allow_plain_http": allow_plain_http,
                "root_certificates": root_certificates,
                "bounds": dict(bounds or {}),
            },
            on_finding or _log_finding,
        )

    async def validate_async(
        self, token: str | bytes, *, now: int | None = None
    ) -> dict[str, Any]:
        """As `validate`. It waits only if a key set or a log has to be read."""
        claims = self.validate_at_once(token, now=now)
        if claims is None:
            claims = await _in_thread(self.validate, token, now=now)
        return claims

    async def judge_async(
        self, token: str | bytes, *, now: int | None = None
    ) -> _native.Accepted:
        """As `judge`. It waits only if a key set or a log has to be read."""
        accepted = self.judge_at_once(token, now=now)
        if accepted is None:
            accepted = await _in_thread(self.judge, token, now=now)
        return accepted

    async def explain_async(
        self, token: str | bytes, *, now: int | None = None
    ) -> dict[str, Any]:
        """As `explain`."""
        return await _in_thread(self.explain, token, now=now)

    async def ready_async(self) -> None:
        """As `ready`."""
        await _in_thread(self.ready)


def _texts(what: str, value: str | Iterable[str]) -> list[str]:
    if isinstance(value, str):
        return [value]
    if isinstance(value, bytes | bytearray | Mapping) or not isinstance(value, Iterable):
        raise TypeError(f"{what} is a str or several, not {type(value).__name__}")
    return list(value)


def _per_issuer(
    what: str, issuers: list[str], value: T | Mapping[str, T] | None
) -> list[tuple[str, T]]:
    """Pairs of issuer and value, from one value for the one issuer or from a mapping."""
    if value is None:
        return []
    if not isinstance(value, Mapping):
        if len(issuers) != 1:
            raise ValueError(f"there are {len(issuers)} issuers: map each one to its {what}")
        return [(issuers[0], value)]
    for issuer in value:
        if issuer not in issuers:
            raise ValueError(f"{what} names `{issuer}`, which is no issuer here")
    return list(value.items())


def _key_sets(
    issuers: list[str], jwks: JwkSet | Mapping[str, JwkSet] | None
) -> list[tuple[str, bytes]]:
    # A JWK Set has a member `keys` (RFC 7517, section 5.1), which is not an issuer's URL.
    one = isinstance(jwks, Mapping) and "keys" in jwks
    pairs = _per_issuer("jwks", issuers, json.dumps(jwks) if one else jwks)
    return [(issuer, _key_set(key_set)) for issuer, key_set in pairs]


def _key_set(key_set: Any) -> bytes:
    if isinstance(key_set, Mapping):
        key_set = json.dumps(key_set)
    if isinstance(key_set, str):
        return key_set.encode("utf-8", "surrogatepass")
    if isinstance(key_set, bytes):
        return key_set
    raise TypeError(f"jwks is str, bytes or a dict, not {type(key_set).__name__}")


class _Pool:
    """The threads in which coroutines' calls wait: made when needed, in each process anew."""

    def __init__(self) -> None:
        self.renew()
        os.register_at_fork(after_in_child=self.renew)

    def renew(self) -> None:
        """Forgets threads that another process has."""
        self._lock = threading.Lock()
        self._pool: ThreadPoolExecutor | None = None

    def get(self) -> ThreadPoolExecutor:
        with self._lock:
            if self._pool is None:
                self._pool = ThreadPoolExecutor(_WAITING_THREADS, thread_name_prefix="chancery")
            return self._pool


_pool = _Pool()
os.register_at_fork(after_in_child=_native.forked)


async def _in_thread(call: Callable[P, T], *arguments: P.args, **options: P.kwargs) -> T:
    """Waits for `call` in a thread; a cancelled waiter leaves, and the call ends by its bounds."""
    loop = asyncio.get_running_loop()
    return await loop.run_in_executor(_pool.get(), partial(call, *arguments, **options))


def _log_finding(finding: dict[str, Any]) -> None:
    claims = finding["claims"]
    logger.warning(
        "the log says `%s` about token `%s` of `%s`, signed by `%s`: %s",
        finding["verdict"],
        claims.get("jti"),
        claims.get("iss"),
        finding["kid"],
        json.dumps(finding["told"]),
    )
