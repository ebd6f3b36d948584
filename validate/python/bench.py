"""How many tokens a second one core validates: this package beside PyJWT and joserfc.

usage: python bench.py [SECONDS]

All of them check the signature, `iss`, `aud`, `exp`, `nbf`, the presence of seven claims and, where
they can, `typ`, with the key loaded beforehand, and all give the claims as a `dict`. They are
measured in turn, in short slices of one run, in CPU time.
"""

import sys
import threading
import time

import joserfc.jwk
import joserfc.jwt
import jwt
from chancery import Validator
from issuing import AUDIENCE, ISSUER, Issuer

CLAIMS = ["iss", "sub", "aud", "exp", "iat", "jti", "client_id"]
LEEWAY_S = 30
# Validations in a slice: short, so that whatever else the machine does meets all of them.
SLICE = 50
# What is aimed at: ours for each one of a peer's.
AIMS = {("ES256", "PyJWT"): 2.0, ("ES256", "joserfc"): 1.7}
AIMS |= {("Ed25519", "PyJWT"): 2.7, ("Ed25519", "joserfc"): 2.7}
AIM_CACHED = 400_000

# RFC 9864 calls it Ed25519; PyJWT knows the older name EdDSA alone.
jwt.register_algorithm("Ed25519", jwt.algorithms.OKPAlgorithm())


def ours(issuer, **options):
    validator = Validator(
        issuer=ISSUER, audience=AUDIENCE, jwks={"keys": [issuer.member]}, **options
    )
    return validator.validate


def pyjwt(issuer):
    older = {"Ed25519": "EdDSA"}
    key = jwt.PyJWK({**issuer.jwk, "alg": older.get(issuer.algorithm, issuer.algorithm)}).key
    options = {"require": CLAIMS}
    algorithms = [issuer.algorithm]

    def validate(token):
        return jwt.decode(
            token,
            key,
            algorithms=algorithms,
            issuer=ISSUER,
            audience=AUDIENCE,
            leeway=LEEWAY_S,
            options=options,
        )

    return validate


def joserfc_(issuer):
    key = joserfc.jwk.import_key(issuer.jwk)
    algorithms = [issuer.algorithm]
    required = {claim: {"essential": True} for claim in CLAIMS}
    required["iss"]["value"] = ISSUER
    required["aud"]["value"] = AUDIENCE
    registry = joserfc.jwt.JWTClaimsRegistry(leeway=LEEWAY_S, **required)

    def validate(token):
        decoded = joserfc.jwt.decode(token, key, algorithms=algorithms)
        if decoded.header.get("typ") != "at+jwt":
            raise ValueError("typ")
        registry.validate(decoded.claims)
        return decoded.claims

    return validate


def measure(seconds, contenders, token):
    """Validations a second of CPU time, by name; the contenders take turns."""
    spent = dict.fromkeys(contenders, 0.0)
    slices = 0
    while sum(spent.values()) < seconds:
        for name, validate in contenders.items():
            begun = time.thread_time()
            for _ in range(SLICE):
                validate(token)
            spent[name] += time.thread_time() - begun
        slices += 1
    return {name: slices * SLICE / used for name, used in spent.items()}


def in_threads(validate, token, threads, seconds):
    """Validations a second of wall time by several threads."""
    counts = [0] * threads
    until = time.perf_counter() + seconds

    def work(index):
        while time.perf_counter() < until:
            for _ in range(SLICE):
                validate(token)
            counts[index] += SLICE

    workers = [threading.Thread(target=work, args=(index,)) for index in range(threads)]
    begun = time.perf_counter()
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return sum(counts) / (time.perf_counter() - begun)


def main():
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 3.0
    now = int(time.time())
    met = True
    print("validations a second of one core's time, a token of 12 claims, claims as a dict")
    print(f"{'':<10}{'chancery':>10}{'PyJWT':>10}{'joserfc':>10}  ratios")
    for algorithm in ("ES256", "Ed25519", "RS256"):
        issuer = Issuer(now, algorithm)
        token = issuer.token()
        contenders = {
            "chancery": ours(issuer),
            "PyJWT": pyjwt(issuer),
            "joserfc": joserfc_(issuer),
        }
        for name, validate in contenders.items():
            if validate(token) != issuer.claims():
                raise SystemExit(f"{name} gives other claims")
        rates = measure(seconds, contenders, token)
        told = []
        for peer in ("PyJWT", "joserfc"):
            ratio, aim = rates["chancery"] / rates[peer], AIMS.get((algorithm, peer))
            told.append(f"{ratio:.2f} x {peer}" + (f" (aim {aim})" if aim else ""))
            met &= aim is None or ratio >= aim
        columns = "".join(f"{rate:>10,.0f}" for rate in rates.values())
        print(f"{algorithm:<10}{columns}  {', '.join(told)}")
    issuer = Issuer(now)
    token = issuer.token()
    cached = ours(issuer, cache=1000)
    rate = measure(seconds, {"cached": cached}, token)["cached"]
    met &= rate >= AIM_CACHED
    print(f"{'cache hit':<10}{rate:>10,.0f}  (aim {AIM_CACHED:,})")
    for threads in (1, 2):
        rate = in_threads(ours(issuer), token, threads, seconds)
        print(f"ES256 in {threads} thread{'s'[: threads - 1]}, wall time: {rate:,.0f}")
    print("aims: " + ("met" if met else "NOT met"))


if __name__ == "__main__":
    main()
