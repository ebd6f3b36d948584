"""Hands findings of the native half to Python.

The native half's own threads never enter the interpreter: they queue a finding and write to a pipe.
A thread of Python's waits at the other end, so that neither a fork nor the interpreter's end finds a
foreign thread inside.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any

from chancery import _native

logger = logging.getLogger("chancery")


def watch(
    findings: _native.Findings, descriptor: int, on_finding: Callable[[dict[str, Any]], object]
) -> None:
    """Calls `on_finding` with each finding until the validator is gone; takes the descriptor."""
    threading.Thread(
        target=_deliver,
        args=(findings, descriptor, on_finding),
        name="chancery-findings",
        daemon=True,
    ).start()


def _deliver(
    findings: _native.Findings, descriptor: int, on_finding: Callable[[dict[str, Any]], object]
) -> None:
    with open(descriptor, "rb", buffering=0) as pipe:
        while pipe.read(4096):
            for finding in findings.take():
                try:
                    on_finding(finding)
                except Exception:
                    logger.exception("on_finding raised")
