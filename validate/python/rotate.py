"""Validates tokens without a pause while keys rotate, and reports every wrong verdict.

usage: python rotate.py ISSUER AUDIENCE SECONDS COMMAND [ARGUMENT...]

COMMAND prints one token a line for as long as it runs; `-` reads them from standard input. Each
token is validated when it arrives, and again and again for as long as it lives, by all three ways of
the package in turn. A line that begins with `!` is a token that must be rejected from the time on
that follows it, `!UNIX_SECONDS TOKEN`: its key was compromised.

Prints counts, and exits with 1 if a good token was rejected once, a bad one accepted, or if no
token came.
"""

from __future__ import annotations

import asyncio
import base64
import json
import math
import queue
import subprocess
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable
from typing import Any

from chancery import Rejection, Validator

# Tokens that are validated again and again: the latest of some rotations.
KEPT = 200
# A compromise is told to us a moment after it happened: a rejection just before that is no error.
GRACE_S = 2
# A token this close to its end may expire between our look at it and the verdict.
MARGIN_S = 2
# Between two tokens: there is room for a service and other watchers on the same machine.
PAUSE_S = 0.002


class Watch:
    """What was judged, and what was wrong."""

    def __init__(self, validator: Validator) -> None:
        self.validator = validator
        self.counts: Counter[str] = Counter()
        self.kids: set[str] = set()
        self.wrong: list[str] = []
        # When and how good tokens were rejected.
        self.rejected: list[tuple[float, str, str]] = []
        self.loop = asyncio.new_event_loop()
        self.ways: dict[str, Callable[[str], Any]] = {
            "validate": validator.validate,
            "judge": validator.judge,
            "validate_async": lambda token: self.loop.run_until_complete(
                validator.validate_async(token)
            ),
        }

    def expect_good(self, token: str) -> None:
        for way, judge in self.ways.items():
            begun = time.time()
            try:
                judge(token)
                self.counts[f"{way}: accepted"] += 1
            except Rejection as rejection:
                text = f"{way} rejected a good token at {begun:.3f}: {rejection}"
                self.rejected.append((begun, token, text))
        self.kids.add(str(part(token, 0)["kid"]))

    def expect_bad(self, token: str) -> None:
        for way, judge in self.ways.items():
            try:
                judge(token)
                self.counts[f"{way}: ACCEPTED a bad one"] += 1
                self._note(f"{way} accepted a token of a compromised key at {time.time():.3f}")
            except Rejection:
                self.counts[f"{way}: rejected a bad one"] += 1

    def settle(self, told_bad: dict[str, float]) -> None:
        """Judges the rejections, now that it is known which tokens turned bad, and when."""
        for when, token, text in self.rejected:
            if when < told_bad.get(token, math.inf) - GRACE_S:
                self.counts["REJECTED good ones"] += 1
                self._note(text)

    def _note(self, text: str) -> None:
        self.wrong.append(text)
        print(text, file=sys.stderr, flush=True)


def part(token: str, index: int) -> dict[str, Any]:
    """Header or payload, not verified."""
    text = token.split(".")[index]
    decoded: dict[str, Any] = json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
    return decoded


def watch(watch: Watch, lines: queue.Queue[str | None], seconds: float) -> None:
    good: deque[str] = deque(maxlen=KEPT)
    bad: deque[tuple[float, str]] = deque(maxlen=KEPT)
    told_bad: dict[str, float] = {}
    until = time.monotonic() + seconds
    ended = False
    while time.monotonic() < until and not (ended and not good):
        for line in drained(lines):
            if line is None:
                ended = True
            elif line.startswith("!"):
                since, token = line[1:].split(" ")
                # Before that time it may be judged either way.
                told_bad[token] = time.time()
                bad.append((float(since), token))
            else:
                watch.counts["tokens"] += 1
                good.append(line)
        if good:
            token = good.popleft()
            if token not in told_bad and part(token, 1)["exp"] > time.time() + MARGIN_S:
                watch.expect_good(token)
                good.append(token)
        if bad and bad[0][0] <= time.time():
            watch.expect_bad(bad[0][1])
            bad.rotate(-1)
        time.sleep(PAUSE_S)
    watch.settle(told_bad)


def drained(lines: queue.Queue[str | None]) -> Iterable[str | None]:
    """What has come since the last time."""
    while True:
        try:
            yield lines.get_nowait()
        except queue.Empty:
            return


def read(source: Iterable[str], lines: queue.Queue[str | None]) -> None:
    for line in source:
        if line.strip():
            lines.put(line.strip())
    lines.put(None)


def main() -> None:
    issuer, audience, seconds, *command = sys.argv[1:]
    validator = Validator(issuer=issuer, audience=audience)
    validator.ready()
    watcher = Watch(validator)
    lines: queue.Queue[str | None] = queue.Queue()
    process = None
    source: Iterable[str] = sys.stdin
    if command != ["-"]:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        source = process.stdout
    threading.Thread(target=read, args=(source, lines), daemon=True).start()
    try:
        watch(watcher, lines, float(seconds))
    finally:
        if process is not None:
            process.terminate()
            process.wait()
    for name, count in sorted(watcher.counts.items()):
        print(f"{name}: {count}")
    print(f"keys: {len(watcher.kids)}")
    print(f"status: {json.dumps(validator.status())}")
    if watcher.wrong or not watcher.counts["tokens"]:
        raise SystemExit(f"FAILED: {len(watcher.wrong)} wrong verdicts")


if __name__ == "__main__":
    main()
