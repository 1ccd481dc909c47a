"""Serve a path that ends with a slash like the same path without it.

Frameworks usually redirect instead, but the redirect would name the scheme and port that the gateway sees, not those
of nginx.
"""

from starlette.types import ASGIApp, Receive, Scope, Send

UNCHANGED_PATHS = ("/", "/docs/")
"""The relative links of the documentation page depend on its path."""


class TrailingSlashMiddleware:
    """Strip trailing slashes from request paths, except from UNCHANGED_PATHS."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] not in UNCHANGED_PATHS:
            scope = {**scope, "path": scope["path"].rstrip("/")}
        await self._app(scope, receive, send)
