"""The key of a prediction: a digest of everything that can change its answer."""

import hashlib
import re
from collections.abc import Hashable, Iterable

IGNORED_HEADERS = frozenset(
    b"host connection keep-alive te trailer transfer-encoding upgrade content-length expect accept-encoding "
    b"user-agent date via dnt priority cache-control pragma "
    b"x-request-id x-request-timeout x-request-start x-edge-id x-gateway-key x-cache-route "
    b"traceparent tracestate b3 x-amzn-trace-id x-cloud-trace-context x-real-ip forwarded "
    b"x-forwarded-for x-forwarded-host x-forwarded-port x-forwarded-proto x-forwarded-server x-forwarded-prefix "
    b"sec-gpc".split()
)
"""Headers that describe the connection, the client program or a trace.

Handlers may read all others, so these are hashed, such as X-Forwarded-User, which proxies set after a login.
"""
IGNORED_PREFIXES = (b"sec-fetch-", b"sec-ch-", b"x-b3-")
_FORM = re.compile(
    rb'multipart/form-data[ \t]*;[ \t]*boundary=(?:"([^"\\]+)"|([^\s;",]+))[ \t]*', re.IGNORECASE
)
_DELIMITER_END = re.compile(rb"(?:--)?[ \t]*(?:\r\n|\Z)")

Headers = Iterable[tuple[bytes, bytes]]


def request_digest(route: Hashable, query: bytes, headers: Headers, body: bytes | bytearray) -> bytes:
    """Return the SHA-256 digest of a request, without IGNORED_HEADERS and the boundary of a multipart body.

    Args:
        route: The registration of the model and the class of the route. Different ones must have different `repr`s.
        query: The query string.
        headers: All headers, with names in lower case.
        body: The body.
    """
    relevant = sorted((name, value) for name, value in headers if not _is_ignored(name))
    form_type, parts = _without_boundary(relevant, body)
    if form_type:
        relevant = [(name, value) for name, value in relevant if name != b"content-type"]
    # The lengths, so that different parts never give the same bytes.
    digest = hashlib.sha256(repr((route, query, relevant, form_type, [*map(len, parts)])).encode())
    for part in parts:
        digest.update(part)
    return digest.digest()


def _is_ignored(name: bytes) -> bool:
    return name in IGNORED_HEADERS or name.startswith(IGNORED_PREFIXES)


def _without_boundary(
    headers: list[tuple[bytes, bytes]], body: bytes | bytearray
) -> tuple[bytes, list[bytes | bytearray]]:
    """Return the Content-Type and the parts of a form without its boundary.

    If another part of the header or the body than a delimiter could depend on the boundary, the result is an empty
    Content-Type and the whole body.
    """
    types = [value for name, value in headers if name == b"content-type"]
    match = _FORM.fullmatch(types[0]) if len(types) == 1 else None
    if match is None:
        return b"", [body]
    group = 1 if match[1] else 2
    delimiter = b"--" + match[group]
    first, *others = body.split(b"\r\n" + delimiter)
    parts = [first[len(delimiter) :], *others]
    if not first.startswith(delimiter) or not all(map(_DELIMITER_END.match, parts)):
        return b"", [body]
    return types[0][: match.start(group)] + types[0][match.end(group) :], parts
