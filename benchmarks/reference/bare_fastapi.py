"""A route as FastAPI's tutorial writes it."""

from fastapi import FastAPI
from pydantic import BaseModel

app = FastAPI()


class Token(BaseModel):
    tenant: str
    access_token: str
    token_type: str
    expires_in: int
    scope: str


@app.get("/token/{tenant}")
async def token(tenant: str) -> Token:
    return Token(
        tenant=tenant,
        access_token="x" * 43,
        token_type="Bearer",
        expires_in=3600,
        scope="read write",
    )
