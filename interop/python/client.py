"""A client: asks for tokens with PyJWT and Python's own library.

usage: python client.py ISSUER CLIENT_ID KEY_FILE AUDIENCE
"""

import json
import pathlib
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid

import jwt

ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
# At most 120 s are accepted; a proof is used at once.
PROOF_SECONDS = 60
# A new proof may succeed a moment later. The others are answers, not accidents.
TRY_AGAIN = {
    "proof_before_start",
    "no_active_key",
    "clock_untrusted",
    "voided",
    "rate_limited",
    "temporarily_unavailable",
}
ATTEMPTS = 8


class Refused(Exception):
    """The service said no. `reason` is one of the codes of docs/clients.md."""

    def __init__(self, status, reason, detail):
        super().__init__(f"{status} {reason}: {detail}")
        self.status, self.reason, self.detail = status, reason, detail


class Client:
    """A client of one realm, known there by the public half of `key` (a PEM)."""

    def __init__(self, issuer, client_id, key, alg="ES256", kid=None):
        with urllib.request.urlopen(f"{issuer}/.well-known/openid-configuration") as answer:
            metadata = json.load(answer)
        if metadata["issuer"] != issuer:
            raise ValueError(f"discovery names {metadata['issuer']}, not {issuer}")
        self.issuer, self.client_id = issuer, client_id
        self.key, self.alg, self.kid = key, alg, kid
        self.token_endpoint = metadata["token_endpoint"]
        self.issuance_endpoint = metadata["chancery_issuance_endpoint"]

    def proof(self, typ, **members):
        """A JWS that says who asks. Each is used once: `jti` makes it unique."""
        now = int(time.time())
        claims = {
            "iss": self.client_id,
            "sub": self.client_id,
            "aud": self.issuer,
            "iat": now,
            "exp": now + PROOF_SECONDS,
            "jti": str(uuid.uuid4()),
            **members,
        }
        # A client with one key may leave `kid` out.
        header = {"typ": typ, **({"kid": self.kid} if self.kid else {})}
        return jwt.encode(claims, self.key, algorithm=self.alg, headers=header)

    def token(self, audience, scope=None):
        """One token from the OAuth token endpoint, with `private_key_jwt`."""

        def ask():
            form = {
                "grant_type": "client_credentials",
                "client_assertion_type": ASSERTION_TYPE,
                "client_assertion": self.proof("client-authentication+jwt"),
                "audience": audience,
                **({"scope": scope} if scope else {}),
            }
            kind = "application/x-www-form-urlencoded"
            return post(self.token_endpoint, kind, urllib.parse.urlencode(form))

        return patiently(ask)["access_token"]

    def issue(self, requests, proofs=False):
        """Tokens by one signed issuance request: nobody on the way can alter what is asked for.

        Answers one member for each request, in their order: with `access_token`, or with `error`.
        """

        def ask():
            body = self.proof("chancery-request+jwt", requests=requests)
            url = self.issuance_endpoint + ("?proof=true" if proofs else "")
            return post(url, "application/jwt", body)

        return patiently(ask)["tokens"]


def post(url, kind, body):
    """Posts a body and reads the JSON answer; raises `Refused` for an error."""
    request = urllib.request.Request(url, body.encode(), {"Content-Type": kind})
    try:
        with urllib.request.urlopen(request, timeout=15) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            told = json.load(error)
        # The token endpoint answers as RFC 6749 says, the others as RFC 9457 says.
        reason = told.get("reason") or told.get("code")
        detail = told.get("error_description") or told.get("detail")
        raise Refused(error.code, reason, detail) from None


def patiently(ask):
    """Asks again, with a new proof each time, while the refusal is one that passes."""
    for attempt in range(ATTEMPTS):
        try:
            return ask()
        except Refused as refused:
            if refused.reason not in TRY_AGAIN or attempt == ATTEMPTS - 1:
                raise
            time.sleep(1)


if __name__ == "__main__":
    issuer, client_id, key_file, audience = sys.argv[1:]
    print(Client(issuer, client_id, pathlib.Path(key_file).read_text()).token(audience))
