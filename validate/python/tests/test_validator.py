"""The package as its users meet it."""

import asyncio
import gc
import inspect
import json
import pickle
import sys
import threading
import weakref

import pytest

import chancery
from chancery import CODES, Accepted, Rejection, Unavailable, Validator
from issuing import AUDIENCE, ISSUER, Issuer, b64


def code_of(validator, token, **options):
    with pytest.raises(Rejection) as caught:
        validator.validate(token, **options)
    return caught.value.code


def test_a_good_token_gives_its_claims(issuer, validator, token):
    assert validator.validate(token) == issuer.claims()
    assert validator.validate(token.encode()) == issuer.claims()
    assert type(validator.validate(token)) is dict


def test_judge_tells_the_key(issuer, validator, token):
    accepted = validator.judge(token)
    assert isinstance(accepted, Accepted)
    assert accepted.claims == issuer.claims() and accepted.claims is accepted.claims
    assert (accepted.kid, accepted.algorithm, accepted.typ) == (issuer.kid, "ES256", "at+jwt")
    assert accepted.key_thumbprint == issuer.kid
    assert accepted.log is None
    assert "user:4217" in repr(accepted)
    with pytest.raises(TypeError):
        Accepted()


def test_a_rejection_tells_code_meaning_and_remedy(issuer, validator):
    with pytest.raises(Rejection) as caught:
        validator.validate(issuer.token(aud="https://other.example"))
    rejection = caught.value
    assert rejection.code == "wrong_audience"
    assert str(rejection) == f"wrong_audience: {rejection.detail}"
    assert "https://other.example" in rejection.detail
    assert (rejection.meaning, rejection.remedy, rejection.retryable) == CODES["wrong_audience"]
    assert not rejection.retryable and type(rejection) is Rejection
    copy = pickle.loads(pickle.dumps(rejection))
    assert type(copy) is Rejection and (copy.code, copy.detail) == (rejection.code, rejection.detail)


def test_the_table_of_codes_is_read_only_and_whole():
    retryable = {code for code, told in CODES.items() if told.retryable}
    assert {"log_pending", "log_unknown", "keys_unavailable"} <= retryable
    assert all(told.meaning.endswith(".") and told.remedy.endswith(".") for told in CODES.values())
    with pytest.raises(TypeError):
        CODES["expired"] = None


def test_times_are_judged_at_now(issuer, validator, token):
    assert code_of(validator, token, now=issuer.now + 3630) == "expired"
    assert validator.validate(token, now=issuer.now + 3629)
    assert code_of(validator, token, now=0) == "issued_in_future"
    for wrong in (-1, 2**64, 1.5, "0"):
        with pytest.raises((TypeError, OverflowError)):
            validator.validate(token, now=wrong)


def test_explain_lists_each_check(validator, issuer, token):
    told = validator.explain(token)
    assert [step["passed"] for step in told["steps"]] == [True] * len(told["steps"])
    assert told["rejection"] is None and told["accepted"].claims == issuer.claims()
    failed = validator.explain(issuer.token(aud="x"))
    assert failed["steps"][-1]["check"] == "audience" and not failed["steps"][-1]["passed"]
    assert failed["rejection"]["code"] == "wrong_audience" and failed["accepted"] is None
    assert asyncio.run(validator.explain_async(token))["steps"] == told["steps"]


def hostile_tokens():
    yield from ("", ".", "..", "...", "a.b.c", "\0", "\0.\0.\0", "\ud800", "a\udfff.b.c", "é.é.é")
    yield from (" ", "Bearer x", "\U0001f600" * 4, "." * 16_000, "A" * 16_384, "=" * 100)
    yield from (b"", b"\0", b"\xff\xfe", b"\xed\xa0\x80.a.b", b"\x80" * 100)
    yield b64(b'{"alg":"none"}') + "." + b64(b"{}") + "."
    yield b64(b"[" * 10_000) + ".e30.AA"
    yield b64(b'{"a":' * 2000) + ".e30.AA"


@pytest.mark.parametrize("hostile", list(hostile_tokens()), ids=lambda token: repr(token[:12]))
def test_hostile_text_is_rejected(validator, hostile):
    for judge in (validator.validate, validator.judge, validator.validate_at_once):
        with pytest.raises(Rejection):
            judge(hostile)
    assert validator.explain(hostile)["rejection"]["code"] in CODES


@pytest.mark.parametrize("size", [16_385, 1_000_000, 100_000_000])
@pytest.mark.parametrize("unit", ["A", "\ud800", b"\xff"], ids=["text", "surrogates", "bytes"])
def test_huge_tokens_are_oversize(validator, size, unit):
    assert code_of(validator, unit * size) == "oversize"


@pytest.mark.parametrize("wrong", [None, 1, 1.5, True, [], {}, object(), bytearray(b"x"), str])
def test_other_types_are_type_errors(validator, wrong):
    for judge in (validator.validate, validator.judge, validator.explain):
        with pytest.raises(TypeError, match="a token is str or bytes, not "):
            judge(wrong)
    with pytest.raises(TypeError):
        validator.validate()
    with pytest.raises(TypeError):
        validator.validate("a", 5)


def test_every_changed_octet_of_a_token_is_noticed(validator, token):
    for place in range(0, len(token), 7):
        for letter in "A.\0é":
            if token[place] != letter:
                changed = token[:place] + letter + token[place + 1 :]
                with pytest.raises(Rejection):
                    validator.validate(changed)


def test_subclasses_of_str_and_bytes_are_judged_by_their_content(issuer, validator, token):
    class Text(str):
        def __str__(self):
            raise AssertionError

        __eq__ = __hash__ = __len__ = __str__

    assert validator.validate(Text(token)) == issuer.claims()


@pytest.mark.parametrize("jwks", ["{", "\ud800", b"", {"keys": 5}], ids=repr)
def test_a_key_set_that_is_refused_has_its_code(jwks):
    with pytest.raises(Rejection) as caught:
        Validator(**settings(jwks=jwks))
    assert caught.value.code == "key_set_refused"


def settings(**options):
    return {"issuer": ISSUER, "audience": AUDIENCE, "jwks": '{"keys":[]}', **options}


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"issuer": ""}, "issuer"),
        ({"issuer": []}, "issuer"),
        ({"audience": ""}, "audience"),
        ({"audience": ()}, "audience"),
        ({"profile": "lax"}, "`lax` is no profile"),
        ({"jwks": {"https://other.example": {"keys": []}}}, "`https://other.example`"),
        ({"issuer": ["https://a.example", "https://b.example"]}, "map each one"),
        ({"leeway": 301}, "leeway"),
        ({"max_lifetime": 0}, "lifetime"),
        ({"accepted_typ": []}, "typ"),
        ({"algorithms": ["HS256"]}, "HS256"),
        ({"tenants": ["x"]}, "tenants"),
        ({"log": "maybe"}, "`maybe`"),
        ({"log_lookup": "guess"}, "`guess`"),
        ({"log_lookup": "digest", "profile": "entra"}, "found by digest"),
        ({"attestation": "maybe"}, "`maybe`"),
        ({"anchor": "no key"}, "line 1 of the anchor"),
        ({"bounds": {"no_such_bound": 1}}, "`no_such_bound`"),
        ({"bounds": {"cool_down_s": 0}}, "`cool_down`"),
        ({"bounds": {"keep_s": -1}}, "`keep_s`"),
        ({"bounds": {"keep_s": float("nan")}}, "`keep_s`"),
        ({"bounds": {"waiting": 1.5}}, "`waiting`"),
        ({"jwks": None, "issuer": "no url"}, "no url"),
        ({"jwks": None, "issuer": "http://id.example"}, "http"),
        ({"jwks": None, "root_certificates": b"x"}, "root certificates"),
    ],
    ids=lambda value: str(value)[:40] if isinstance(value, dict) else "",
)
def test_settings_that_cannot_be_met_are_value_errors(options, told):
    with pytest.raises(ValueError, match=told):
        Validator(**settings(**options))


@pytest.mark.parametrize(
    "options",
    [
        {"issuer": None},
        {"issuer": 5},
        {"issuer": b"https://a.example"},
        {"issuer": [5]},
        {"audience": None},
        {"profile": None},
        {"leeway": "30"},
        {"leeway": 1.5},
        {"max_lifetime": "1"},
        {"jwks": 5},
        {"jwks": ["keys"]},
        {"cache": None},
        {"accept_eddsa": "yes"},
        {"anchor": b"x"},
        {"no_such_setting": 1},
    ],
    ids=str,
)
def test_settings_of_a_wrong_type_are_type_errors(options):
    with pytest.raises(TypeError):
        Validator(**settings(**options))


@pytest.mark.parametrize("options", [{"leeway": -1}, {"cache": -1}, {"max_lifetime": 2**70}], ids=str)
def test_settings_out_of_range_are_errors(options):
    with pytest.raises((ValueError, OverflowError, TypeError)):
        Validator(**settings(**options))


def test_settings_are_named():
    with pytest.raises(TypeError):
        Validator(ISSUER, AUDIENCE)


def test_a_key_set_is_text_octets_or_a_dict(issuer, token):
    text = json.dumps(issuer.jwks)
    for jwks in (text, text.encode(), issuer.jwks, {ISSUER: text}, {ISSUER: issuer.jwks}):
        validator = Validator(issuer=ISSUER, audience=AUDIENCE, jwks=jwks)
        assert validator.validate(token) == issuer.claims()


def test_each_issuer_has_its_own_keys(issuer, token):
    other = Issuer(issuer.now, "Ed25519", "https://id.example/organizations")
    sets = {ISSUER: issuer.jwks, other.issuer: other.jwks}
    both = Validator(issuer=[ISSUER, other.issuer], audience=["x", AUDIENCE], jwks=sets)
    assert both.validate(token)["iss"] == ISSUER
    assert both.validate(other.token())["iss"] == other.issuer
    assert code_of(both, other.token(iss=ISSUER)) == "unknown_key"


def test_demands_can_be_narrowed(issuer, token):
    def code(**options):
        validator = Validator(issuer=ISSUER, audience=AUDIENCE, jwks=issuer.jwks, **options)
        return code_of(validator, token)

    assert code(algorithms=["Ed25519"]) != "valid"
    assert code(max_lifetime=3599) == "lifetime_too_long"
    assert code(accepted_typ=["x"]) == "wrong_type"


def test_ordinary_providers_have_a_profile(issuer):
    keys = {"keys": [issuer.jwk]}
    oidc = Validator(issuer=ISSUER, audience=AUDIENCE, profile="oidc", jwks=keys)
    strict = Validator(issuer=ISSUER, audience=AUDIENCE, jwks=keys)
    assert oidc.validate(issuer.token(client_id=None))
    assert code_of(strict, issuer.token()) == "key_without_window"


def test_a_cache_changes_no_verdict(issuer):
    validator = Validator(issuer=ISSUER, audience=AUDIENCE, jwks=issuer.jwks, cache=100)
    token = issuer.token()
    for _ in range(3):
        assert validator.validate(token) == issuer.claims()
    assert code_of(validator, token, now=issuer.now + 7200) == "key_left_set"
    assert code_of(validator, token[:-4] + "AAAA") == "bad_signature"
    assert validator.validate(token) == issuer.claims()


def test_threads_share_a_validator(issuer, validator, token):
    wrong, seen = issuer.token(aud="x"), []

    def work():
        for _ in range(200):
            seen.append(validator.validate(token) == issuer.claims())
            seen.append(code_of(validator, wrong) == "wrong_audience")

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(seen) == 3200 and all(seen)


def test_coroutines_share_a_validator(issuer, validator, token):
    async def main():
        good = [validator.validate_async(token) for _ in range(100)]
        bad = [validator.validate_async("x") for _ in range(100)]
        good, bad = await asyncio.gather(
            asyncio.gather(*good), asyncio.gather(*bad, return_exceptions=True)
        )
        assert all(claims == issuer.claims() for claims in good)
        assert {rejection.code for rejection in bad} == {"malformed_token"}
        accepted = await validator.judge_async(token)
        assert accepted.kid == issuer.kid

    asyncio.run(main())


def test_nothing_leaks(validator, issuer, token):
    wrong = issuer.token(aud="x")

    def work(times):
        for _ in range(times):
            validator.validate(token)
            validator.judge(token).claims
            code_of(validator, wrong)

    work(10)
    gc.collect()
    before = len(gc.get_objects()), sys.gettotalrefcount() if hasattr(sys, "gettotalrefcount") else 0
    work(500)
    gc.collect()
    assert len(gc.get_objects()) - before[0] < 50


def test_the_state_can_be_asked(validator):
    validator.ready()
    (issuer,) = validator.status()["issuers"]
    assert (issuer["issuer"], issuer["state"], issuer["keys"]) == (ISSUER, "given", 1)
    bounds = Validator.default_bounds()
    assert bounds["cool_down_s"] == 5.0
    assert Validator(issuer=ISSUER, audience=AUDIENCE, jwks='{"keys":[]}', bounds=bounds)


def test_a_validator_shows_itself_and_a_callback_may_refer_to_it(issuer):
    class Service:
        def __init__(self):
            self.validator = Validator(**settings(on_finding=self.on_finding))

        def on_finding(self, finding):
            pass

    service = Service()
    assert repr(service.validator).startswith(f'Validator(issuer=["{ISSUER}"], ')
    gone = weakref.ref(service)
    del service
    gc.collect()
    assert gone() is None


def test_the_version_is_that_of_the_package():
    from importlib.metadata import version

    assert chancery.__version__ == version("chancery")


def test_the_interface_tells_itself():
    for name in chancery.__all__:
        assert getattr(chancery, name) is not None
    assert "issuer" in inspect.signature(Validator).parameters
    for method in ("validate", "judge", "explain", "ready", "status"):
        assert getattr(Validator, method).__doc__
    assert issubclass(Unavailable, Rejection)
