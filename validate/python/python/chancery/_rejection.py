"""Why a token is not acceptable: one closed table, the same in every binding."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from chancery import _native


class CodeInfo(NamedTuple):
    """What `docs/rejections.md` says about a code."""

    meaning: str
    """What it means, in one sentence."""
    remedy: str
    """What to do about it."""
    retryable: bool
    """Whether the same token may become acceptable soon, without a change to it."""


CODES: Mapping[str, CodeInfo] = MappingProxyType(
    {code: CodeInfo(*told) for code, told in _native.rejection_codes().items()}
)
"""Every code that a rejection can have."""


class Rejection(Exception):
    """A token was not accepted. `str()` gives `code: detail`.

    The detail is for the person who looks into it. It may repeat parts of the token, escaped and
    cut, and does not belong into the answer to whoever sent the token.
    """

    code: str
    """The stable code, a key of `CODES`; programs may compare it."""
    detail: str
    """What was seen."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(code, detail)
        self.code = code
        self.detail = detail

    def __str__(self) -> str:
        return f"{self.code}: {self.detail}"

    @property
    def meaning(self) -> str:
        """What the code means, in one sentence."""
        return CODES[self.code].meaning

    @property
    def remedy(self) -> str:
        """What to do about it."""
        return CODES[self.code].remedy

    @property
    def retryable(self) -> bool:
        """Whether the same token may become acceptable soon, without a change to it."""
        return CODES[self.code].retryable


class Unavailable(Rejection):
    """A rejection that is retryable: keys or log could not be had now. The token may be good.

    Services answer it with 503 and `Retry-After`, not with 401.
    """
