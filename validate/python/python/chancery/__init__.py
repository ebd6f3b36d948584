"""The standardized validation of access tokens: one strict judgement, the same in every language.

::

    from chancery import Rejection, Validator

    validator = Validator(issuer="https://id.example/consumers", audience="https://api.example")
    try:
        claims = validator.validate(token)
    except Rejection as rejection:
        print(rejection.code)
"""

from chancery._native import Accepted
from chancery._native import version as _version
from chancery._rejection import CODES, CodeInfo, Rejection, Unavailable
from chancery._validator import Validator

__all__ = [
    "CODES",
    "Accepted",
    "CodeInfo",
    "Rejection",
    "Unavailable",
    "Validator",
    "__version__",
]

__version__: str = _version()
