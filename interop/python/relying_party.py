"""A relying party: accepts tokens with PyJWT, and checks what PyJWT does not know.

usage: python relying_party.py ISSUER AUDIENCE TOKEN
"""

import json
import sys
import urllib.request

import jwt

# RFC 9864 calls it Ed25519; PyJWT knows the older name EdDSA alone.
jwt.register_algorithm("Ed25519", jwt.algorithms.OKPAlgorithm())
ALGORITHMS = {"ES256", "ES384", "RS256", "PS256", "Ed25519"}
CLAIMS = ["iss", "sub", "aud", "exp", "iat", "jti", "client_id"]


class KeySet(jwt.PyJWKClient):
    """PyJWT's cached key set, which also keeps the members that PyJWT drops."""

    def fetch_data(self):
        key_set = super().fetch_data()
        self.members = {jwk["kid"]: jwk for jwk in key_set["keys"]}
        names = {"Ed25519": "EdDSA"}
        keys = [{**jwk, "alg": names.get(jwk["alg"], jwk["alg"])} for jwk in key_set["keys"]]
        return {"keys": keys}


class RelyingParty:
    """Accepts tokens of one issuer for one audience."""

    def __init__(self, issuer, audience, lifespan=150, cooldown=5):
        with urllib.request.urlopen(f"{issuer}/.well-known/openid-configuration") as answer:
            metadata = json.load(answer)
        if metadata["issuer"] != issuer:
            raise ValueError(f"discovery names {metadata['issuer']}, not {issuer}")
        self.issuer, self.audience = issuer, audience
        # PyJWT does not read `max-age`; 150 s is that of the default schedule.
        self.keys = KeySet(
            metadata["jwks_uri"], lifespan=lifespan, cooldown_duration=cooldown, timeout=10
        )

    def accept(self, token):
        """The claims of a token that is good; raises `jwt.PyJWTError` for any other."""
        header = jwt.get_unverified_header(token)
        if header.get("typ") != "at+jwt":
            raise jwt.InvalidTokenError("not an access token (RFC 9068)")
        key = self.keys.get_signing_key(header.get("kid"))
        member = self.keys.members[key.key_id]
        # A key has one algorithm: the key's word counts, not the token's.
        if member["alg"] not in ALGORITHMS:
            raise jwt.InvalidAlgorithmError(f"{member['alg']} is not accepted here")
        claims = jwt.decode(
            token,
            key.key,
            algorithms=[member["alg"]],
            issuer=self.issuer,
            audience=self.audience,
            options={"require": CLAIMS},
        )
        # A key speaks for one issuer, and signs in one window.
        if member["issuer"] != self.issuer:
            raise jwt.InvalidIssuerError("the key speaks for another issuer")
        if not member["nbf"] <= claims["iat"] < member["signs_until"]:
            raise jwt.InvalidIssuedAtError("issued outside the key's window")
        return claims


if __name__ == "__main__":
    issuer, audience, token = sys.argv[1:]
    print(json.dumps(RelyingParty(issuer, audience).accept(token)))
