"""Tries ordinary Python libraries on a running service in development mode.

usage: python check.py URL DATA_FOLDER CHANCERY

Prints a line for each library, realm and algorithm, and exits 1 at the first failure. `cargo xtask
python` starts the service and runs this.
"""

import base64
import json
import pathlib
import subprocess
import sys
import time
import urllib.parse
import urllib.request

import jwt
from jwcrypto import jwk as jwcrypto_jwk
from jwcrypto import jwt as jwcrypto_jwt
from jwcrypto.common import JWException

from client import ASSERTION_TYPE, Client, Refused, post
from relying_party import RelyingParty

AUDIENCE, OTHER_AUDIENCE = "https://api.example", "https://orders.example"
CLIENT = "demo"
REALMS = {
    "consumers": ["ES256", "RS256", "PS256", "Ed25519"],
    "organizations": ["Ed25519", "ES384", "ML-DSA-44", "ML-DSA-65", "ML-DSA-87"],
}
# What the pinned versions know: a version that knows more or less is to be noticed.
PYJWT_KNOWS = {"ES256", "ES384", "RS256", "PS256"}
JWCRYPTO_KNOWS = PYJWT_KNOWS | {"Ed25519", "ML-DSA-44", "ML-DSA-65", "ML-DSA-87"}


class Service:
    """The service under test, as a stranger sees it, and its command line."""

    def __init__(self, url, data, chancery):
        self.url, self.data, self.chancery = url, pathlib.Path(data), chancery

    def issuer(self, realm):
        return f"{self.url}/{realm}"

    def command(self, name, realm, *arguments):
        words = [self.chancery, name, "--data", self.data, "--realm", realm, *arguments]
        return subprocess.run(words, check=True, capture_output=True, text=True).stdout.strip()

    def get(self, url):
        with urllib.request.urlopen(url, timeout=15) as answer:
            return json.load(answer)

    def jwks_uri(self, realm):
        return self.get(f"{self.issuer(realm)}/.well-known/openid-configuration")["jwks_uri"]

    def client(self, realm):
        key = (self.data / "demo-client.pem").read_text()
        kid = jwcrypto_jwk.JWK.from_pem(key.encode()).thumbprint()
        return Client(self.issuer(realm), CLIENT, key, kid=kid)

    def token(self, realm, alg, audience=AUDIENCE):
        arguments = ["--audience", audience, "--alg", alg]
        return self.command("token", realm, *arguments)


def main():
    service = Service(*sys.argv[1:])
    plain_http(service)
    for realm, algorithms in REALMS.items():
        keys = jwt.PyJWKClient(service.jwks_uri(realm))
        for alg in algorithms:
            token = service.token(realm, alg)
            pyjwt(service, realm, alg, token, keys)
            jwcrypto(service, realm, alg, token)
        client(service, realm)
        relying_party(service, realm, algorithms)
    as_programs(service)
    one_realm_is_not_the_other(service)
    expiry(service)


def plain_http(service):
    """The default algorithm of each realm, as anybody with an HTTP client gets it."""
    for realm, (alg, *_) in REALMS.items():
        metadata = service.get(f"{service.issuer(realm)}/.well-known/openid-configuration")
        form = {
            "grant_type": "client_credentials",
            "client_assertion_type": ASSERTION_TYPE,
            "client_assertion": service.command("assertion", realm),
            "audience": AUDIENCE,
            "scope": "read",
        }
        body = urllib.parse.urlencode(form)
        answer = post(metadata["token_endpoint"], "application/x-www-form-urlencoded", body)
        expect(answer["token_type"] == "Bearer" and answer["scope"] == "read", answer)
        header = jwt.get_unverified_header(answer["access_token"])
        expect(header["alg"] == alg and header["typ"] == "at+jwt", header)
        if alg in PYJWT_KNOWS:
            key = jwt.PyJWKClient(metadata["jwks_uri"]).get_signing_key(header["kid"])
            claims = decode(service, realm, answer["access_token"], key)
            expect(claims["exp"] - claims["iat"] == answer["expires_in"], claims)
        say("http", realm, alg, "token received by plain HTTP")


def decode(service, realm, token, key, audience=AUDIENCE):
    """What the documentation of PyJWT shows."""
    return jwt.decode(
        token, key, algorithms=PYJWT_KNOWS, audience=audience, issuer=service.issuer(realm)
    )


def pyjwt(service, realm, alg, token, keys):
    """PyJWT as it comes, with PyJWKClient."""
    known = alg in jwt.algorithms.get_default_algorithms()
    expect(known == (alg in PYJWT_KNOWS), f"{alg} in PyJWT {jwt.__version__}: {known}")
    if not known:
        refused(jwt.PyJWKClientError, lambda: keys.get_signing_key_from_jwt(token))
        say("pyjwt", realm, alg, "not known to the library")
        return
    key = keys.get_signing_key_from_jwt(token)
    claims = decode(service, realm, token, key)
    expect(claims["sub"] == CLIENT and claims["client_id"] == CLIENT, claims)
    for forged in tampered(token):
        refused(jwt.InvalidSignatureError, lambda forged=forged: decode(service, realm, forged, key))
    refused(
        jwt.InvalidAudienceError, lambda: decode(service, realm, token, key, OTHER_AUDIENCE)
    )
    say("pyjwt", realm, alg, "validated")


def jwcrypto(service, realm, alg, token):
    """jwcrypto, which knows post-quantum signatures too."""
    with urllib.request.urlopen(service.jwks_uri(realm)) as answer:
        keys = jwcrypto_jwk.JWKSet.from_json(answer.read().decode())
    demands = {"iss": service.issuer(realm), "aud": AUDIENCE, "exp": None, "sub": CLIENT}

    def validate(text, demands):
        return jwcrypto_jwt.JWT(jwt=text, key=keys, algs=[alg], check_claims=demands)

    expect(alg in JWCRYPTO_KNOWS, alg)
    claims = json.loads(validate(token, demands).claims)
    expect(claims["client_id"] == CLIENT, claims)
    for forged in tampered(token):
        refused(JWException, lambda forged=forged: validate(forged, demands))
    wrong = {**demands, "aud": OTHER_AUDIENCE}
    refused(jwcrypto_jwt.JWTInvalidClaimValue, lambda: validate(token, wrong))
    say("jwcrypto", realm, alg, "validated")


def client(service, realm):
    """Proofs that PyJWT makes: assertions and signed issuance requests."""
    demo = service.client(realm)
    accepts = RelyingParty(service.issuer(realm), AUDIENCE)
    claims = accepts.accept(demo.token(AUDIENCE, scope="read write"))
    expect(claims["scope"] == "read write", claims)
    nameless = Client(demo.issuer, CLIENT, demo.key)
    accepts.accept(nameless.token(AUDIENCE))

    form = {
        "grant_type": "client_credentials",
        "client_assertion_type": ASSERTION_TYPE,
        "client_assertion": demo.proof("client-authentication+jwt"),
        "audience": AUDIENCE,
    }
    ask = [demo.token_endpoint, "application/x-www-form-urlencoded", urllib.parse.urlencode(form)]
    post(*ask)
    reason(401, "proof_replayed", lambda: post(*ask))
    reason(400, "audience_not_granted", lambda: demo.token("https://elsewhere.example"))
    stranger = Client(demo.issuer, "stranger", demo.key)
    reason(401, "unknown_client", lambda: stranger.token(AUDIENCE))
    say("pyjwt", realm, demo.alg, "client assertion accepted")

    jkt = jwcrypto_jwk.JWK.generate(kty="EC", crv="P-256").thumbprint()
    asked = {"aud": AUDIENCE, "sub": "user:7", "lifetime": 60, "claims": {"tier": "gold"}}
    answers = demo.issue(
        [{**asked, "cnf": {"jkt": jkt}}, {"aud": AUDIENCE, "scope": "admin"}, asked], proofs=True
    )
    bound = accepts.accept(answers[0]["access_token"])
    expect(bound["cnf"] == {"jkt": jkt} and bound["tier"] == "gold", bound)
    expect(bound["sub"] == "user:7" and bound["exp"] - bound["iat"] == 60, bound)
    expect(answers[0]["proof"].startswith("c2sp.org/tlog-proof@v1\n"), answers[0])
    expect(answers[1]["error"] == "scope_not_granted", answers[1])
    expect("cnf" not in accepts.accept(answers[2]["access_token"]), answers[2])
    reason(403, "scope_not_granted", lambda: demo.issue([{"aud": AUDIENCE, "scope": "admin"}]))
    say("pyjwt", realm, demo.alg, "signed issuance request accepted")


def relying_party(service, realm, algorithms):
    """The relying party of the documentation: PyJWT, and what it does not check."""
    accepts = RelyingParty(service.issuer(realm), AUDIENCE)
    for alg in algorithms:
        if alg.startswith("ML-DSA"):
            continue
        token = service.token(realm, alg)
        claims = accepts.accept(token)
        for forged in tampered(token):
            refused(jwt.InvalidSignatureError, lambda forged=forged: accepts.accept(forged))
        other = service.token(realm, alg, OTHER_AUDIENCE)
        refused(jwt.InvalidAudienceError, lambda: accepts.accept(other))

        member = accepts.keys.members[jwt.get_unverified_header(token)["kid"]]
        for name, value, error in [
            ("signs_until", claims["iat"], jwt.InvalidIssuedAtError),
            ("nbf", claims["iat"] + 1, jwt.InvalidIssuedAtError),
            ("issuer", "https://other.example", jwt.InvalidIssuerError),
        ]:
            kept, member[name] = member[name], value
            refused(error, lambda: accepts.accept(token))
            member[name] = kept
        accepts.accept(token)
        say("relying_party.py", realm, alg, "validated, with the key's window and issuer")
    assertion = service.command("assertion", realm)
    refused(jwt.InvalidTokenError, lambda: accepts.accept(assertion))


def as_programs(service):
    """The two scripts of the documentation, run as it says."""

    def script(name, *arguments):
        file = pathlib.Path(__file__).with_name(name)
        words = [sys.executable, file, service.issuer("consumers"), *arguments]
        return subprocess.run(words, check=True, capture_output=True, text=True).stdout.strip()

    token = script("client.py", CLIENT, service.data / "demo-client.pem", AUDIENCE)
    claims = json.loads(script("relying_party.py", AUDIENCE, token))
    expect(claims["sub"] == CLIENT, claims)
    say("client.py", "consumers", "ES256", "accepted by relying_party.py")


def one_realm_is_not_the_other(service):
    """A token of one realm means nothing in the other: its key is not in the other's set."""
    for mine, other in [("consumers", "organizations"), ("organizations", "consumers")]:
        token = service.token(mine, REALMS[mine][0])
        accepts = RelyingParty(service.issuer(other), AUDIENCE)
        refused(jwt.PyJWKClientError, lambda: accepts.accept(token))
        say("pyjwt", mine, REALMS[mine][0], f"refused by {other}")


def expiry(service):
    """A token of one second is good, and then it is not."""
    accepts = RelyingParty(service.issuer("consumers"), AUDIENCE)
    (answer,) = service.client("consumers").issue([{"aud": AUDIENCE, "lifetime": 2}])
    claims = accepts.accept(answer["access_token"])
    time.sleep(max(0, claims["exp"] - time.time()) + 0.1)
    refused(jwt.ExpiredSignatureError, lambda: accepts.accept(answer["access_token"]))
    say("pyjwt", "consumers", "ES256", "refused once it has expired")


def tampered(token):
    """The token with another subject, and with another signature."""
    header, payload, signature = token.split(".")
    claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    claims["sub"] = "admin"
    other = base64.urlsafe_b64encode(json.dumps(claims).encode()).rstrip(b"=").decode()
    # Any character but the last carries six bits of the signature.
    middle = len(signature) // 2
    letter = "A" if signature[middle] != "A" else "B"
    broken = signature[:middle] + letter + signature[middle + 1 :]
    return [f"{header}.{other}.{signature}", f"{header}.{payload}.{broken}"]


def reason(status, code, ask):
    """Asks for what must be refused, for this reason."""
    try:
        answer = ask()
    except Refused as told:
        expect((told.status, told.reason) == (status, code), told)
        return
    raise SystemExit(f"FAILED: `{code}` was expected, not {answer}")


def refused(error, ask):
    """Does what must fail, with this error."""
    try:
        ask()
    except error:
        return
    raise SystemExit(f"FAILED: accepted, although `{error.__name__}` was expected")


def expect(truth, shown):
    if not truth:
        raise SystemExit(f"FAILED: {shown}")


def say(library, realm, alg, what):
    print(f"{library:<17}{realm:<15}{alg:<11}{what}", flush=True)


if __name__ == "__main__":
    main()
