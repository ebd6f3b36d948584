"""Makes a client's key and prints the client's entry for the configuration.

usage: python register.py KEY_FILE CLIENT_ID AUDIENCE
"""

import os
import sys

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from jwt.algorithms import ECAlgorithm


def new_key(file):
    """Makes an ES256 key, writes it as PKCS#8 PEM for its owner alone, and returns the public JWK."""
    key = ec.generate_private_key(ec.SECP256R1())
    pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as out:
        out.write(pem)
    return ECAlgorithm.to_jwk(key.public_key(), as_dict=True)


def entry(client, jwk, audience):
    """The client as a table of the configuration; it belongs under its `[[realms]]`."""
    members = ", ".join(f'{name} = "{jwk[name]}"' for name in ("kty", "crv", "x", "y"))
    return f"""
[[realms.clients]]
id = "{client}"
keys = [{{ {members} }}]

[[realms.clients.grants]]
name = "{client}"
audiences = ["{audience}"]
"""


if __name__ == "__main__":
    key_file, client_id, audience = sys.argv[1:]
    print(entry(client_id, new_key(key_file), audience))
