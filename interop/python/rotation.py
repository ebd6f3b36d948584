"""Watches a realm whose keys rotate every few seconds, with PyJWT's own caching.

usage: python rotation.py ISSUER CLIENT_ID KEY_FILE AUDIENCE SECONDS

Exits 1 when a token that was issued is refused once, or when no rotation was seen.
"""

import pathlib
import re
import sys
import time
import urllib.request

import jwt

from client import Client
from relying_party import RelyingParty

# Keys that sign one after another in the time that the recipe watches, at least.
ROTATIONS = 3
# Between two tokens, in seconds: many for each key, and room for everything else on two cores.
PAUSE_S = 0.05


class Counting(RelyingParty):
    """A relying party that counts how often its library fetched the key set."""

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.fetched = 0
        fetch = self.keys.fetch_data

        def count():
            self.fetched += 1
            return fetch()

        self.keys.fetch_data = count


def main():
    issuer, client_id, key_file, audience, seconds = sys.argv[1:]
    client = Client(issuer, client_id, pathlib.Path(key_file).read_text())
    with urllib.request.urlopen(f"{issuer}/jwks.json") as answer:
        max_age = int(re.search(r"max-age=(\d+)", answer.headers["Cache-Control"])[1])
    # The one keeps the key set for its max-age, and never asks for an unknown key. The other
    # keeps it for long, and asks for unknown keys no more often than every 3 s: less than the
    # 4 s for which a key stands in the set before it signs.
    watchers = {
        f"fetching every {max_age} s": Counting(issuer, audience, lifespan=max_age, cooldown=3600),
        "fetching for unknown keys": Counting(issuer, audience, lifespan=3600, cooldown=3),
    }
    kids, tokens = [], []
    client.token(audience)
    until = time.monotonic() + float(seconds)
    while time.monotonic() < until:
        token = client.token(audience)
        for watcher in watchers.values():
            watcher.accept(token)
        kid = jwt.get_unverified_header(token)["kid"]
        if kid not in kids:
            kids.append(kid)
        tokens.append(token)
        time.sleep(PAUSE_S)
    # What retired keys signed stays good until it expires.
    alive = [t for t in tokens if expires(t) > time.time() + 1]
    for token in alive:
        for watcher in watchers.values():
            watcher.accept(token)
    if len(kids) <= ROTATIONS:
        raise SystemExit(f"FAILED: only {len(kids)} keys signed in {seconds} s")
    print(f"rotation: {len(tokens)} tokens under {len(kids)} keys validated, none refused")
    print(f"rotation: {len(alive)} of them validated again after their keys had retired")
    for name, watcher in watchers.items():
        print(f"rotation: {name}: {watcher.fetched} fetches of the key set")


def expires(token):
    return jwt.decode(token, options={"verify_signature": False})["exp"]


if __name__ == "__main__":
    main()
