"""Answer a path with a slash at its end like the path without it.

A redirect, which frameworks send instead, names the scheme and port that the gateway sees, not those of nginx.
"""

from starlette.types import ASGIApp, Receive, Scope, Send

KEPT = ("/", "/docs/")
"""The links of the documentation's page depend on its address."""


class TrailingSlashMiddleware:
    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] not in KEPT:
            scope = {**scope, "path": scope["path"].rstrip("/")}
        await self._app(scope, receive, send)
