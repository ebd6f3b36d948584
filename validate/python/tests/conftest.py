import time

import pytest

from chancery import Validator
from issuing import AUDIENCE, ISSUER, Issuer


@pytest.fixture(scope="session")
def issuer():
    """An issuer whose key signs from a minute ago on."""
    return Issuer(int(time.time()) - 60)


@pytest.fixture(scope="session")
def validator(issuer):
    return Validator(issuer=ISSUER, audience=AUDIENCE, jwks=issuer.jwks)


@pytest.fixture(scope="session")
def token(issuer):
    return issuer.token()
