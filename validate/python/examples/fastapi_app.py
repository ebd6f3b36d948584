"""A service that accepts tokens: FastAPI with the dependency `Bearer`.

ISSUER=... AUDIENCE=... uvicorn fastapi_app:app
"""

import os
from typing import Annotated, Any

from fastapi import FastAPI, Security

from chancery import Validator
from chancery.asgi import Bearer

validator = Validator(issuer=os.environ["ISSUER"], audience=os.environ["AUDIENCE"])
bearer = Bearer(validator)
app = FastAPI()

Token = Annotated[dict[str, Any], Security(bearer)]


@app.get("/whoami")
async def whoami(token: Token) -> dict[str, Any]:
    return {"sub": token["sub"], "client_id": token["client_id"]}


@app.get("/orders")
async def orders(
    token: Annotated[dict[str, Any], Security(bearer, scopes=["orders:read"])],
) -> dict[str, Any]:
    return {"orders of": token["sub"]}
