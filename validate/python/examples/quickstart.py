"""A relying party: accepts one token.

usage: python quickstart.py ISSUER AUDIENCE TOKEN
"""

import sys

from chancery import Rejection, Validator


def main() -> None:
    issuer, audience, token = sys.argv[1:]
    # Make one when the program starts, and keep it: it keeps the key set.
    validator = Validator(issuer=issuer, audience=audience)
    try:
        claims = validator.validate(token)
    except Rejection as rejection:
        # The code is stable; the detail is for your log, not for whoever sent the token.
        raise SystemExit(f"rejected as {rejection.code}: {rejection.remedy}") from rejection
    print(f"valid: {claims['sub']}, {claims['jti']}")


if __name__ == "__main__":
    main()
