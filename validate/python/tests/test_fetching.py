"""Key sets that are fetched: from threads, coroutines and forked processes, in good times and bad."""

import asyncio
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import uvloop

from chancery import Rejection, Unavailable, Validator
from issuing import AUDIENCE, Issuer
from serving import DISCOVERY, Server

# Short bounds, so that tests need not wait.
BOUNDS = {"cool_down_s": 0.2, "min_age_s": 0.2, "fetch_timeout_s": 5.0}
HERE = Path(__file__).parent


@pytest.fixture
def server():
    server = Server()
    yield server
    server.close()


def validator_of(server, **options):
    return Validator(issuer=server.url, audience=AUDIENCE, bounds=BOUNDS, **options)


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def run(request):
    """Runs a coroutine in a loop of either kind."""
    loop = request.param()
    yield loop.run_until_complete
    loop.close()


def test_the_key_set_is_found_and_fetched_once(server):
    validator = validator_of(server)
    for _ in range(100):
        assert validator.validate(server.issuer.token()) == server.issuer.claims()
    assert server.requests == [DISCOVERY, "/jwks.json"]
    (state,) = validator.status()["issuers"]
    assert (state["state"], state["fetches"], state["failures"]) == ("fresh", 1, 0)


def test_a_known_place_needs_no_discovery(server):
    validator = validator_of(server, jwks_uri=f"{server.url}/jwks.json")
    validator.ready()
    assert validator.validate(server.issuer.token()) == server.issuer.claims()
    assert server.requests == ["/jwks.json"]


def test_what_is_at_hand_is_judged_at_once(server):
    server.delay_s = 0.2
    validator = validator_of(server)
    token = server.issuer.token()
    assert validator.validate_at_once(token) is None
    assert validator.judge_at_once(token) is None
    validator.ready()
    assert validator.validate_at_once(token) == server.issuer.claims()
    assert validator.judge_at_once(token).kid == server.issuer.kid


def test_a_new_key_is_fetched_when_a_token_names_it(server):
    validator = validator_of(server)
    old = server.issuer.token()
    assert validator.validate(old)
    server.rotate()
    time.sleep(BOUNDS["cool_down_s"] * 2)
    assert validator.validate(server.issuer.token()) == server.issuer.claims()
    assert validator.validate(old)
    assert server.fetched() == 2


def test_invented_keys_cause_one_fetch_in_a_cool_down(server):
    validator = validator_of(server)
    validator.ready()
    stranger = Issuer(server.issuer.now, issuer=server.url)
    begun = time.monotonic()
    for number in range(2000):
        with pytest.raises(Rejection) as caught:
            validator.validate(stranger.sign_payload(b"{}", kid=f"invented-{number}"))
        assert caught.value.code == "unknown_key"
    passed = time.monotonic() - begun
    assert server.fetched() <= 2 + passed / BOUNDS["cool_down_s"]


def test_an_issuer_that_is_down_makes_tokens_unavailable_and_not_wrong():
    server = Server(start=False)
    validator = validator_of(server)
    with pytest.raises(Unavailable) as caught:
        validator.validate(server.issuer.token())
    assert caught.value.code == "keys_unavailable" and caught.value.retryable
    with pytest.raises(Unavailable):
        validator.ready()
    with pytest.raises(Unavailable):
        asyncio.run(validator.ready_async())
    assert validator.status()["issuers"][0]["failures"] >= 1
    # What is no token is told at once, whatever the issuer does.
    with pytest.raises(Rejection) as caught:
        validator.validate("x")
    assert caught.value.code == "malformed_token"
    server.start()
    until = time.monotonic() + 20
    while True:
        try:
            assert validator.validate(server.issuer.token()) == server.issuer.claims()
            break
        except Unavailable:
            assert time.monotonic() < until
            time.sleep(0.1)
    server.close()


def test_other_threads_run_while_one_waits(server):
    server.delay_s = 0.5
    validator, ran = validator_of(server), 0
    waiting = threading.Thread(target=validator.validate, args=(server.issuer.token(),))
    waiting.start()
    while waiting.is_alive():
        ran += 1
        time.sleep(0.001)
    assert ran > 50


def test_coroutines_wait_together_and_the_loop_goes_on(server, run):
    server.delay_s = 0.3
    validator, longest = validator_of(server), 0.0

    async def heartbeat():
        nonlocal longest
        while True:
            begun = time.monotonic()
            await asyncio.sleep(0.01)
            longest = max(longest, time.monotonic() - begun)

    async def main():
        beating = asyncio.ensure_future(heartbeat())
        token = server.issuer.token()
        claims = await asyncio.gather(*(validator.validate_async(token) for _ in range(100)))
        accepted = await validator.judge_async(token)
        beating.cancel()
        assert all(one == server.issuer.claims() for one in claims)
        assert accepted.kid == server.issuer.kid
        await validator.ready_async()

    run(main())
    assert server.fetched() == 1
    # The two requests together took 0.6 s.
    assert longest < 0.3


def test_a_cancelled_coroutine_leaves_nothing_behind(server, run):
    server.delay_s = 0.5
    validator = validator_of(server)
    token = server.issuer.token()

    async def main():
        begun = time.monotonic()
        waiting = asyncio.ensure_future(validator.validate_async(token))
        await asyncio.sleep(0.05)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert time.monotonic() - begun < 0.4
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(validator.validate_async(token), 0.05)
        assert await validator.validate_async(token) == server.issuer.claims()

    run(main())
    assert server.fetched() == 1


def test_findings_come_to_the_callback(server):
    found, errors = threading.Event(), []

    def on_finding(finding):
        errors.append(finding)
        found.set()
        raise ValueError("a callback may fail")

    validator = validator_of(server, log="report", on_finding=on_finding)
    logging.getLogger("chancery").propagate = False
    try:
        assert validator.validate(server.issuer.token()) == server.issuer.claims()
        assert found.wait(10)
    finally:
        logging.getLogger("chancery").propagate = True
    assert errors[0]["verdict"] == "unknown" and errors[0]["kid"] == server.issuer.kid
    assert errors[0]["claims"] == server.issuer.claims() and errors[0]["told"]["why"]


def test_findings_are_logged_without_a_callback(server, caplog):
    validator = validator_of(server, log="report")
    token = server.issuer.token()
    assert validator.judge(token).log is None
    until = time.monotonic() + 10
    while "the log says `unknown`" not in caplog.text:
        assert time.monotonic() < until
        time.sleep(0.01)
    assert server.issuer.claims()["sub"] not in caplog.text


def test_a_log_that_is_required_and_cannot_be_read_is_unavailable(server):
    validator = validator_of(server, log="require")
    with pytest.raises(Unavailable) as caught:
        validator.validate(server.issuer.token())
    assert caught.value.code == "log_unknown"


def test_the_watching_thread_ends_with_its_validator(server):
    before = set(threading.enumerate())
    validator = validator_of(server, log="report")
    validator.ready()
    (watching,) = [
        thread for thread in set(threading.enumerate()) - before
        if thread.name == "chancery-findings"
    ]  # fmt: skip
    assert watching.is_alive()
    del validator
    watching.join(10)
    assert not watching.is_alive()


def script(text, *arguments, **options):
    """Starts Python with `text`, which finds the helpers of these tests."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE), str(HERE.parent)])}
    return subprocess.Popen(
        [sys.executable, "-c", text, *arguments],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


FORK = """
import asyncio, os, sys, warnings
warnings.simplefilter("ignore")
from chancery import Validator
url, audience, token, log = sys.argv[1:]
validator = Validator(issuer=url, audience=audience, log=log)
parent = validator.validate(token)
asyncio.run(validator.validate_async(token))
children = []
for _ in range(4):
    child = os.fork()
    if child == 0:
        good = validator.validate(token) == parent
        good &= asyncio.run(validator.validate_async(token)) == parent
        good &= validator.status()["issuers"][0]["fetches"] == 1
        asyncio.run(validator.ready_async())
        grandchild = os.fork()
        if grandchild == 0:
            os._exit(0 if validator.validate(token) == parent else 1)
        good &= os.waitpid(grandchild, 0)[1] == 0
        os._exit(0 if good else 1)
    children.append(child)
assert all(os.waitpid(child, 0)[1] == 0 for child in children), "a child failed"
assert validator.validate(token) == parent
print("good")
"""


@pytest.mark.parametrize("log", ["off", "report"])
def test_forked_processes_fetch_for_themselves(server, log):
    process = script(FORK, server.url, AUDIENCE, server.issuer.token(), log)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (0, "good\n"), err
    assert server.fetched() == 9


WAIT = """
import sys, time
from chancery import Validator
validator = Validator(issuer=sys.argv[1], audience=sys.argv[2])
print("waiting", flush=True)
begun = time.monotonic()
try:
    validator.validate(sys.argv[3])
except KeyboardInterrupt:
    print("interrupted")
"""


def test_ctrl_c_ends_a_wait(server):
    server.delay_s = 4
    process = script(WAIT, server.url, AUDIENCE, server.issuer.token())
    assert process.stdout.readline() == "waiting\n"
    time.sleep(0.2)
    begun = time.monotonic()
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (0, "interrupted\n"), err
    assert time.monotonic() - begun < 2


LEAVE = """
import sys, threading, time
from chancery import Validator
class Slow:
    # Runs while the interpreter ends, when threads of Python cannot enter it any more.
    def __del__(self, sleep=time.sleep):
        sleep(0.3)
slow = Slow()
validator = Validator(issuer=sys.argv[1], audience=sys.argv[2], log="report")
threading.Thread(target=validator.ready, daemon=True).start()
print("leaving", flush=True)
"""


def test_the_interpreter_ends_while_a_fetch_runs(server):
    server.delay_s = 4
    process = script(LEAVE, server.url, AUDIENCE)
    begun = time.monotonic()
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (0, "leaving\n", "")
    assert time.monotonic() - begun < 3
