"""The corpus of `validate/vectors`: every binding judges each case alike."""

import asyncio
import json
from pathlib import Path

import pytest

from chancery import CODES, Rejection, Validator

VECTORS = Path(__file__).parents[2] / "vectors"
# A corpus that shrank was lost, not finished.
LEAST_CASES = 300


def cases():
    for file in sorted(VECTORS.glob("*.json")):
        corpus = json.loads(file.read_text())
        for case in corpus["cases"]:
            yield pytest.param(case, corpus["key_sets"], id=f"{file.stem}/{case['id']}")


CASES = list(cases())


def validator_of(case, key_sets):
    config = dict(case["config"])
    issuers = config.pop("issuers")
    names = {issuers[0]: case["key_set"], **case.get("other_key_sets", {})}
    options = {
        "issuer": issuers,
        "audience": config.pop("audiences"),
        "leeway": config.pop("leeway_s"),
        "max_lifetime": config.pop("max_lifetime_s"),
        "jwks": {issuer: key_sets[name] for issuer, name in names.items()},
    }
    names = ["profile", "accepted_typ", "allow_missing_typ", "accept_eddsa", "algorithms"]
    options |= {name: config.pop(name) for name in [*names, "tenants"]}
    assert not config, f"members that this test does not know: {sorted(config)}"
    return Validator(**options)


def verdict(case, key_sets, judge):
    try:
        judge(validator_of(case, key_sets))
    except Rejection as rejection:
        assert rejection.detail and rejection.meaning and rejection.remedy
        return rejection.code
    return "valid"


@pytest.mark.parametrize(("case", "key_sets"), CASES)
def test_case(case, key_sets):
    token, now = case["token"], case["now"]
    ways = [
        lambda validator: validator.validate(token, now=now),
        lambda validator: validator.judge(token, now=now),
        lambda validator: asyncio.run(validator.validate_async(token, now=now)),
        lambda validator: validator.validate(token.encode(), now=now),
    ]
    verdicts = {verdict(case, key_sets, way) for way in ways}
    assert verdicts == {case["expect"]}, case["reason"]


def test_the_corpus_is_whole():
    assert len(CASES) >= LEAST_CASES
    expected = {param.values[0]["expect"] for param in CASES}
    assert expected <= {"valid", *CODES}
