"""Against a running service in development mode; `cargo xtask python` starts one."""

import asyncio
import json
import os
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import httpx2
import pytest

from chancery import Rejection, Unavailable, Validator

AUDIENCE = "https://api.example"
EXAMPLES = Path(__file__).parents[1] / "examples"
URL = os.environ.get("CHANCERY_URL")

pytestmark = pytest.mark.skipif(URL is None, reason="CHANCERY_URL names no running service")


def token_of(realm, audience=AUDIENCE):
    words = ["token", "--data", os.environ["CHANCERY_DATA"], "--realm", realm]
    command = [os.environ["CHANCERY"], *words, "--audience", audience]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def document(path):
    with urllib.request.urlopen(f"{URL}{path}", timeout=10) as answer:
        return answer.read().decode()


def patiently(judge):
    """Tries again for as long as the verdict may pass, as a client of a 503 does."""
    until = time.monotonic() + 20
    while True:
        try:
            return judge()
        except Unavailable:
            if time.monotonic() > until:
                raise
            time.sleep(0.2)


@pytest.mark.parametrize("realm", ["consumers", "organizations"])
def test_tokens_of_each_realm(realm):
    issuer = f"{URL}/{realm}"
    validator = Validator(issuer=issuer, audience=AUDIENCE)
    token = token_of(realm)
    claims = validator.validate(token)
    assert (claims["iss"], claims["aud"]) == (issuer, AUDIENCE)
    assert asyncio.run(validator.validate_async(token)) == claims
    with pytest.raises(Rejection) as caught:
        validator.validate(token_of(realm, "https://orders.example"))
    assert caught.value.code == "wrong_audience"


def test_one_validator_for_both_realms():
    issuers = [f"{URL}/consumers", f"{URL}/organizations"]
    validator = Validator(issuer=issuers, audience=AUDIENCE, cache=100)
    validator.ready()
    for realm in ("consumers", "organizations"):
        assert validator.validate_at_once(token_of(realm))["iss"] == f"{URL}/{realm}"


def test_the_token_is_in_its_log():
    validator = Validator(issuer=f"{URL}/consumers", audience=AUDIENCE, log="require")
    token = token_of("consumers")
    assert patiently(lambda: validator.judge(token)).log == "in_log"
    told = validator.explain(token)
    assert told["rejection"] is None and told["accepted"].log == "in_log"


def test_an_announced_key_is_believed_and_another_is_not():
    issuer = f"{URL}/consumers"
    (log, *_) = {key["log"].split(".")[0] for key in json.loads(document("/consumers/jwks.json"))["keys"]}
    anchor = document(f"/log/{log}/vkey")
    token = token_of("consumers")
    validator = Validator(issuer=issuer, audience=AUDIENCE, anchor=f"# the signer's log\n{anchor}")
    assert patiently(lambda: validator.validate(token))["iss"] == issuer
    # A log of the specification's examples, which announced nothing here.
    other = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
    validator = Validator(issuer=issuer, audience=AUDIENCE, anchor=other)
    with pytest.raises(Rejection) as caught:
        validator.validate(token)
    assert caught.value.code == "key_not_announced"


def test_the_quick_start():
    words = [sys.executable, EXAMPLES / "quickstart.py", f"{URL}/consumers", AUDIENCE]
    done = subprocess.run([*words, token_of("consumers")], capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.startswith("valid: "), done.stderr
    wrong = token_of("consumers", "https://orders.example")
    done = subprocess.run([*words, wrong], capture_output=True, text=True)
    assert done.returncode == 1 and done.stderr.startswith("rejected as wrong_audience: ")


def test_the_service_of_the_documentation(monkeypatch):
    monkeypatch.setenv("ISSUER", f"{URL}/consumers")
    monkeypatch.setenv("AUDIENCE", AUDIENCE)
    monkeypatch.syspath_prepend(str(EXAMPLES))
    from fastapi_app import app

    async def get(path, token):
        transport = httpx2.ASGITransport(app=app)
        async with httpx2.AsyncClient(transport=transport, base_url="http://test") as client:
            return await client.get(path, headers={"Authorization": f"Bearer {token}"})

    answer = asyncio.run(get("/whoami", token_of("consumers")))
    assert answer.status_code == 200 and answer.json()["client_id"] == "demo"
    assert asyncio.run(get("/whoami", "x")).status_code == 401
    assert asyncio.run(get("/orders", token_of("consumers"))).status_code == 403
