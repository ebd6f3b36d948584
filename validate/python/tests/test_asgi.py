"""The middleware and the dependency, in real applications of Starlette and FastAPI."""

import asyncio
import logging
import subprocess
import sys
from typing import Annotated

import httpx2
import pytest
from fastapi import Depends, FastAPI, Request, Security, WebSocket
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route, WebSocketRoute
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from chancery import Unavailable, Validator
from chancery.asgi import Bearer, BearerMiddleware
from issuing import AUDIENCE, ISSUER


class Unreachable(Validator):
    """A validator whose log cannot be read now."""

    async def validate_async(self, token, *, now=None):
        raise Unavailable("log_unknown", "the secret detail")


@pytest.fixture(scope="session")
def unreachable(issuer):
    return Unreachable(issuer=ISSUER, audience=AUDIENCE, jwks=issuer.jwks)


async def whoami(request):
    return JSONResponse({"sub": request.state.token["sub"]})


async def echo(websocket):
    await websocket.accept()
    await websocket.send_text(websocket.state.token["sub"])
    await websocket.close()


def starlette(validator, **options):
    routes = [Route("/", whoami), Route("/open", lambda request: JSONResponse({}))]
    app = Starlette(routes=[*routes, WebSocketRoute("/ws", echo)])
    app.add_middleware(BearerMiddleware, validator=validator, **options)
    return app


def get(app, path="/", *, token=None, headers=None):
    """The answer to one GET."""
    headers = list(headers or [])
    if token is not None:
        headers.append(("Authorization", f"Bearer {token}"))

    async def main():
        transport = httpx2.ASGITransport(app=app)
        async with httpx2.AsyncClient(transport=transport, base_url="http://test") as client:
            return await client.get(path, headers=headers)

    return asyncio.run(main())


def test_a_good_token_reaches_the_application_with_its_claims(validator, token):
    answer = get(starlette(validator), token=token)
    assert (answer.status_code, answer.json()) == (200, {"sub": "user:4217"})


@pytest.mark.parametrize("scheme", ["bearer", "BEARER", "Bearer "])
def test_the_scheme_has_no_case_and_spaces_do_not_count(validator, token, scheme):
    headers = [("authorization", f"{scheme} {token}")]
    assert get(starlette(validator), headers=headers).status_code == 200


def test_no_token_is_401_without_an_error_code(validator):
    for headers in ([], [("Authorization", "Basic dTpw")], [("Authorization", "")]):
        answer = get(starlette(validator, realm="api"), headers=headers)
        assert answer.status_code == 401
        assert answer.headers["WWW-Authenticate"] == 'Bearer realm="api"'
    assert get(starlette(validator)).headers["WWW-Authenticate"] == "Bearer"


def test_a_rejected_token_is_401_and_the_detail_stays_here(validator, issuer, caplog):
    caplog.set_level(logging.INFO, "chancery.asgi")
    answer = get(starlette(validator), token=issuer.token(aud="https://secret.example"))
    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"] == 'Bearer error="invalid_token"'
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.json() == {"error": "invalid_token"}
    shown = answer.text + str(answer.headers)
    assert "secret" not in shown and "audience" not in shown
    assert "wrong_audience" in caplog.text


def test_whatever_is_in_the_header_is_answered(validator):
    for octets in (b"Bearer \xff\xfe", b"Bearer a b c", b"Bearer \xc3\xa9.b.c", b"Bearer " + b"A" * 20_000):
        answer = get(starlette(validator), headers=[(b"Authorization", octets)])
        assert answer.status_code == 401, octets
        assert answer.json() == {"error": "invalid_token"}


def test_a_malformed_request_is_400(validator, token):
    twice = [("Authorization", f"Bearer {token}")] * 2
    for headers in (twice, [("Authorization", "Bearer")], [("Authorization", "Bearer  ")]):
        answer = get(starlette(validator), headers=headers)
        assert answer.status_code == 400
        assert answer.headers["WWW-Authenticate"] == 'Bearer error="invalid_request"'


def test_what_may_pass_later_is_503(unreachable, token, caplog):
    for app in (starlette(unreachable), fastapi(unreachable)):
        answer = get(app, token=token)
        assert answer.status_code == 503
        assert answer.headers["Retry-After"] == "5"
        assert "WWW-Authenticate" not in answer.headers
        assert "secret" not in answer.text and "log" not in answer.text
    assert "the secret detail" in caplog.text
    answer = get(starlette(unreachable, retry_after=60), token=token)
    assert answer.headers["Retry-After"] == "60"


def test_too_little_scope_is_403(validator, issuer, token):
    app = starlette(validator, required_scope="read admin", realm="api")
    answer = get(app, token=token)
    assert answer.status_code == 403
    assert answer.headers["WWW-Authenticate"] == (
        'Bearer realm="api", error="insufficient_scope", scope="read admin"'
    )
    assert get(app, token=issuer.token(scope="admin x read")).status_code == 200
    assert get(app, token=issuer.token(scope=None)).status_code == 403
    # Entra's `scp` is the application's to judge, as in every other binding.
    assert get(app, token=issuer.token(scope=None, scp="read admin")).status_code == 403
    assert get(app, token=issuer.token(scope="readadmin read")).status_code == 403
    assert get(starlette(validator, required_scope=["read"]), token=token).status_code == 200


def test_a_scope_that_is_none_grants_nothing(issuer):
    lenient = Validator(issuer=ISSUER, audience=AUDIENCE, jwks=issuer.jwks, profile="oidc")
    app = starlette(lenient, required_scope="admin")
    assert get(app, token=issuer.token(scope="read admin")).status_code == 200
    for odd in ["read  admin", " admin", "admin ", 'read" admin', ["admin"], 7]:
        assert get(app, token=issuer.token(scope=odd)).status_code == 403, odd


def test_open_paths_need_no_token(validator):
    app = starlette(validator, open_paths=["/open"])
    assert get(app, "/open").status_code == 200
    for path in ("/", "/open/", "/Open", "//open"):
        assert get(app, path).status_code == 401, path


def test_lifespan_passes(validator):
    with TestClient(starlette(validator)) as client:
        assert client.get("/").status_code == 401


def test_websockets_are_judged_before_they_are_accepted(validator, token):
    client = TestClient(starlette(validator))
    headers = {"Authorization": f"Bearer {token}"}
    with client.websocket_connect("/ws", headers=headers) as websocket:
        assert websocket.receive_text() == "user:4217"
    for headers in ({}, {"Authorization": "Bearer x"}):
        with pytest.raises((WebSocketDisconnect, httpx2.HTTPError, Exception)) as caught:
            with client.websocket_connect("/ws", headers=headers):
                pass
        told = caught.value
        status = getattr(told, "status_code", None)
        assert status == 401 or getattr(told, "code", None) == 1008, repr(told)


def test_settings_that_would_break_a_header_are_refused(validator):
    app = Starlette()
    for options in (
        {"required_scope": 'a"b'},
        {"required_scope": ["a b"]},
        {"realm": 'a"b'},
        {"realm": "a\r\nb"},
        {"retry_after": -1},
    ):
        with pytest.raises(ValueError):
            BearerMiddleware(app, validator, **options)


def fastapi(validator):
    bearer = Bearer(validator)
    app = FastAPI()

    @app.get("/")
    async def whoami(token: Annotated[dict, Depends(bearer)]):
        return {"sub": token["sub"]}

    @app.get("/sync")
    def whoami_in_a_thread(request: Request, token: Annotated[dict, Depends(bearer)]):
        return {"sub": token["sub"], "path": request.url.path}

    @app.get("/write")
    async def write(token: Annotated[dict, Security(bearer, scopes=["write"])]):
        return {"sub": token["sub"]}

    @app.get("/admin")
    async def admin(token: Annotated[dict, Security(bearer, scopes=["admin"])]):
        return {"sub": token["sub"]}

    @app.websocket("/ws")
    async def echo(websocket: WebSocket, token: Annotated[dict, Depends(bearer)]):
        await websocket.accept()
        await websocket.send_text(token["sub"])
        await websocket.close()

    return app


def test_the_dependency_gives_the_claims(validator, token):
    app = fastapi(validator)
    for path in ("/", "/sync", "/write"):
        answer = get(app, path, token=token)
        assert (answer.status_code, answer.json()["sub"]) == (200, "user:4217")


def test_the_dependency_answers_as_the_middleware_does(validator, issuer, token):
    app = fastapi(validator)
    answer = get(app)
    assert (answer.status_code, answer.headers["WWW-Authenticate"]) == (401, "Bearer")
    answer = get(app, token=issuer.token(aud="https://secret.example"))
    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"] == 'Bearer error="invalid_token"'
    assert answer.json() == {"detail": "invalid_token"}
    answer = get(app, "/admin", token=token)
    assert answer.status_code == 403
    assert answer.headers["WWW-Authenticate"] == 'Bearer error="insufficient_scope", scope="admin"'
    assert get(app, headers=[("Authorization", "Bearer")]).status_code == 400


def test_the_dependency_demands_its_own_scope_beside_that_of_the_route(validator, issuer):
    bearer, app = Bearer(validator, scope="read"), FastAPI()

    @app.get("/")
    async def both(token: Annotated[dict, Security(bearer, scopes=["write"])]):
        return {}

    assert get(app, token=issuer.token(scope="read write")).status_code == 200
    assert get(app, token=issuer.token(scope="write")).status_code == 403
    assert get(app, token=issuer.token(scope="read")).status_code == 403


def test_the_dependency_is_a_bearer_scheme_of_openapi(validator):
    document = fastapi(validator).openapi()
    schemes = document["components"]["securitySchemes"]
    assert schemes == {"Bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}}
    assert document["paths"]["/admin"]["get"]["security"] == [{"Bearer": ["admin"]}]
    assert "parameters" not in document["paths"]["/"]["get"]
    assert isinstance(Bearer(validator), Bearer)


def test_the_dependency_judges_websockets(validator, token):
    client = TestClient(fastapi(validator))
    headers = {"Authorization": f"Bearer {token}"}
    with client.websocket_connect("/ws", headers=headers) as websocket:
        assert websocket.receive_text() == "user:4217"
    with pytest.raises(WebSocketDisconnect) as caught, client.websocket_connect("/ws"):
        pass
    assert caught.value.code == 1008


def test_the_middleware_needs_no_framework():
    text = """
import sys
class Nothing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("fastapi", "starlette"):
            raise ImportError(name)
sys.meta_path.insert(0, Nothing())
import chancery.asgi
assert "starlette" not in sys.modules
chancery.asgi.BearerMiddleware(None, None)
try:
    chancery.asgi.Bearer(None)
except ImportError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("fastapi"), done.stdout
