"""Keys and tokens as Chancery's signer makes them, for the tests and the benchmark."""

import base64
import hashlib
import json

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa, utils

ISSUER = "https://id.example/consumers"
AUDIENCE = "https://api.example"
LOG = "A" * 22


def b64(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def number(value, octets):
    return b64(value.to_bytes(octets, "big"))


def compact(value):
    return json.dumps(value, separators=(",", ":")).encode()


class Issuer:
    """A key, and the tokens that it signs in its window, which begins at `now`."""

    def __init__(self, now, algorithm="ES256", issuer=ISSUER):
        self.now, self.algorithm, self.issuer = now, algorithm, issuer
        members = getattr(self, f"_{algorithm.lower()}")()
        required = json.dumps(dict(sorted(members.items())), separators=(",", ":"))
        self.kid = b64(hashlib.sha256(required.encode()).digest())
        # What every library knows (RFC 7517), and with the members that are Chancery's.
        self.jwk = {**members, "alg": algorithm, "use": "sig", "kid": self.kid}
        self.member = {
            **self.jwk,
            "issuer": issuer,
            "nbf": now,
            "signs_until": now + 3600,
            "exp": now + 7200,
            "log": f"{LOG}.2",
        }
        self.jwks = {"keys": [self.member]}

    def claims(self, **others):
        """Twelve claims; `others` replace them, None takes one away."""
        claims = {
            "iss": self.issuer,
            "sub": "user:4217",
            "aud": AUDIENCE,
            "client_id": "shop",
            "iat": self.now,
            "nbf": self.now,
            "exp": self.now + 3600,
            "jti": f"{LOG}.4711.uH2cWxSAVDqNr0bqcvlyEA",
            "scope": "read write",
            "tier": "gold",
            "roles": ["buyer", "reviewer"],
            "cnf": {"jkt": self.kid},
        }
        claims.update(others)
        return {name: value for name, value in claims.items() if value is not None}

    def token(self, **others):
        return self.sign_payload(compact(self.claims(**others)))

    def sign_payload(self, payload, **header):
        """Signs any octets as a payload."""
        header = {"alg": self.algorithm, "kid": self.kid, "typ": "at+jwt", **header}
        text = f"{b64(compact(header))}.{b64(payload)}"
        return f"{text}.{b64(self.sign(text.encode()))}"

    def _es256(self):
        key = ec.generate_private_key(ec.SECP256R1())

        def sign(data):
            r, s = utils.decode_dss_signature(key.sign(data, ec.ECDSA(hashes.SHA256())))
            return r.to_bytes(32, "big") + s.to_bytes(32, "big")

        self.sign = sign
        public = key.public_key().public_numbers()
        return {"kty": "EC", "crv": "P-256", "x": number(public.x, 32), "y": number(public.y, 32)}

    def _ed25519(self):
        key = ed25519.Ed25519PrivateKey.generate()
        self.sign = key.sign
        return {"kty": "OKP", "crv": "Ed25519", "x": b64(key.public_key().public_bytes_raw())}

    def _rs256(self):
        key = rsa.generate_private_key(65537, 2048)
        self.sign = lambda data: key.sign(data, padding.PKCS1v15(), hashes.SHA256())
        public = key.public_key().public_numbers()
        return {"kty": "RSA", "n": number(public.n, 256), "e": number(public.e, 3)}


