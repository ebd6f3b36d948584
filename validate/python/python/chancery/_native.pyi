"""The native half of `chancery`; `validate/python/src` in the repository."""

from collections.abc import Callable
from typing import Any, final

from typing_extensions import Self, disjoint_base

__all__ = ["Accepted", "Findings", "NativeValidator", "forked", "rejection_codes", "version"]

def version() -> str: ...
def forked() -> None:
    """To be called in a child after a fork; `chancery` has it called."""

def rejection_codes() -> dict[str, tuple[str, str, bool]]: ...

@final
class Accepted:
    """A token that passed every check: its claims, and by which key it did."""

    @property
    def claims(self) -> dict[str, Any]:
        """All claims, as they were signed: the same `dict` each time."""

    @property
    def kid(self) -> str:
        """The name of the key that signed it."""

    @property
    def algorithm(self) -> str:
        """The algorithm, which is the key's."""

    @property
    def typ(self) -> str | None:
        """The media type of the header, `typ`."""

    @property
    def key_thumbprint(self) -> str:
        """The key's RFC 7638 thumbprint, by which logs name it."""

    @property
    def log(self) -> str | None:
        """What the log said: `in_log`, `pending`, `missing`, `forged`, `unknown`; None if it was
        not asked."""

@final
class Findings:
    """Findings that wait to be taken."""

    def take(self) -> list[dict[str, Any]]:
        """Takes those that wait, the oldest first."""

@disjoint_base
class NativeValidator:
    """The native half of `chancery.Validator`."""

    def __new__(
        cls, settings: dict[str, Any], on_finding: Callable[[dict[str, Any]], object]
    ) -> Self: ...
    def validate(self, token: str | bytes, *, now: int | None = None) -> dict[str, Any]:
        """The claims of a token that passes every check.

        It waits, with other threads running, if a key set or a log has to be read. In a coroutine
        call `validate_async`.

        Args:
            token: The token alone, without `Bearer`.
            now: The time of the judgement in seconds since 1970; by default the clock's.

        Raises:
            Rejection: The first check that the token fails; `Unavailable` if it may pass later.
            TypeError: The token is neither `str` nor `bytes`.
        """

    def validate_at_once(
        self, token: str | bytes, *, now: int | None = None
    ) -> dict[str, Any] | None:
        """As `validate`, but None where that would wait."""

    def judge(self, token: str | bytes, *, now: int | None = None) -> Accepted:
        """As `validate`, with the key, the algorithm and what the log said beside the claims."""

    def judge_at_once(
        self, token: str | bytes, *, now: int | None = None
    ) -> Accepted | None:
        """As `judge`, but None where that would wait."""

    def explain(self, token: str | bytes, *, now: int | None = None) -> dict[str, Any]:
        """The judgement step by step: `steps`, each with `check`, `passed` and the `value` seen,
        and either `accepted`, an `Accepted`, or `rejection` with `code` and `detail`; the other is
        None. It raises no `Rejection`."""

    def ready(self) -> None:
        """Waits until the first key sets are there.

        Raises:
            Unavailable: They cannot be had now.
        """

    def status(self) -> dict[str, Any]:
        """The state of the key sets: their age, fetches, failures, the last error, and within how
        many seconds a key that its issuer takes back is no longer believed."""

    @staticmethod
    def default_bounds() -> dict[str, float]:
        """Every bound with its default; those whose names end in `_s` are times in seconds."""
