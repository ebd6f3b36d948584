"""Claims are the Python objects that `json.loads` makes of the payload, types included."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chancery import Rejection
from issuing import compact

# JSON has no NaN and no infinity, and strict JSON no lone surrogates.
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
leaves = (
    st.none()
    | st.booleans()
    | st.integers(-(10**40), 10**40)
    | st.sampled_from([2**53, 2**63 - 1, 2**63, 2**64 - 1, 2**64, -(2**63), -(2**63) - 1])
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts
)
values = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=12,
)


def same(ours, theirs):
    """Equal, and of equal types all the way down: True is not 1, and 1 is not 1.0."""
    if type(ours) is not type(theirs):
        return False
    if isinstance(ours, dict):
        pairs = zip(ours.items(), theirs.items(), strict=True)
        return all(name == other and same(one, two) for (name, one), (other, two) in pairs)
    if isinstance(ours, list):
        return len(ours) == len(theirs) and all(map(same, ours, theirs))
    return repr(ours) == repr(theirs)


@settings(max_examples=300, deadline=None)
@given(value=values)
def test_any_value_comes_out_as_json_loads_reads_it(issuer, validator, value):
    payload = compact(issuer.claims(extra=value) | {"extra": value})
    claims = validator.validate(issuer.sign_payload(payload))
    assert same(claims, json.loads(payload))


@pytest.mark.parametrize(
    "number",
    ["0", "-0", "-0.0", "1.0", "1e3", "1E+3", "0.1", "5e-324", "1e-400", "1.7976931348623157e308",
     "9" * 19, "9" * 20, "9" * 300, "-" + "9" * 300, "18446744073709551615",
     "18446744073709551616", "-9223372036854775809", "1e22", "100000000000000000000"],
)  # fmt: skip
def test_numbers_keep_kind_and_size(issuer, validator, number):
    payload = compact(issuer.claims())[:-1] + f',"n":{number}}}'.encode()
    claims = validator.validate(issuer.sign_payload(payload))
    assert same(claims["n"], json.loads(number))


@pytest.mark.parametrize("number", ["1e999", "-1e999", "9" * 400, "NaN", "Infinity", "01", "1.", "+1"])
def test_what_is_no_number_is_malformed(issuer, validator, number):
    payload = compact(issuer.claims())[:-1] + f',"n":{number}}}'.encode()
    with pytest.raises(Rejection) as caught:
        validator.validate(issuer.sign_payload(payload))
    assert caught.value.code == "malformed_token"


def test_escapes_and_order_survive(issuer, validator):
    extra = {"z": "é\n\0\U0001f600", "a": "\\\"/", "é": {"é": []}}
    claims = validator.validate(issuer.token(**extra))
    assert same(claims, issuer.claims(**extra))
    assert list(claims) == list(issuer.claims(**extra))


def test_each_call_gives_a_dict_of_its_own(validator, token):
    first, second = validator.validate(token), validator.validate(token)
    assert first == second and first is not second
    first["sub"] = "someone else"
    assert validator.validate(token) == second
