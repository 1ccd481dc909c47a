"""Which differences between requests lead to different keys."""

import pytest

from torchserve_models.gateway.response_cache.request_key import request_digest

ROUTE = ("resnet-50", "predictions")
FORM = b'--%s\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n--x\r\n--%s--\r\n'


def digest(query=b"", body=b"body", route=ROUTE, **headers) -> bytes:
    pairs = [(name.replace("_", "-").encode(), value) for name, value in headers.items()]
    return request_digest(route, query, pairs, body)


def form(boundary: bytes, content_type: bytes = b"multipart/form-data; boundary=%s") -> bytes:
    return digest(body=FORM % (boundary, boundary), content_type=content_type % boundary)


@pytest.mark.parametrize(
    "other",
    [
        digest(body=b"bodY"),
        digest(route=("resnet-51", "predictions")),
        digest(query=b"a=1"),
        digest(authorization=b"Bearer a"),
        digest(describe=b"True"),
        digest(content_type=b"text/plain"),
        digest(body=b"", x=b"body"),
        *(
            digest(**{name: b"1"})
            for name in (
                "x_forwarded_user",
                "x_forwarded_email",
                "x_forwarded_groups",
                "x_forwarded_access_token",
                "x_forwarded_preferred_username",
                "sec_user",
                "baggage",
                "origin",
                "referer",
            )
        ),
    ],
)
def test_anything_that_a_handler_can_see_changes_the_key(other):
    assert other != digest()


@pytest.mark.parametrize(
    "name",
    [
        "x_request_id",
        "user_agent",
        *(f"x_forwarded_{name}" for name in ("for", "host", "port", "proto", "server", "prefix")),
        "traceparent",
        "sec_fetch_mode",
        "x_request_timeout",
    ],
)
def test_headers_about_the_connection_do_not_change_the_key(name):
    assert digest(**{name: b"1"}) == digest(**{name: b"2"}) == digest()


def test_order_of_headers_does_not_matter():
    assert digest(accept=b"a", range=b"b") == digest(range=b"b", accept=b"a")


def test_boundary_of_a_form_does_not_matter():
    assert form(b"one") == form(b"a-much-longer-boundary")
    assert form(b"one", b'multipart/form-data; boundary="%s"') == form(
        b"two", b'multipart/form-data; boundary="%s"'
    )


def test_content_of_a_form_matters():
    original = FORM % (b"one", b"one")
    changed = original.replace(b"image", b"other")
    types = {"content_type": b"multipart/form-data; boundary=one"}
    assert digest(body=original, **types) != digest(body=changed, **types)
    assert digest(body=original, **types) != digest(
        body=original, content_type=b"multipart/form-data; boundary=x"
    )


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        (b"multipart/form-data; boundary=%s", b"--%s\r\n\r\na--%s\r\n--%s--\r\n"),
        (b"multipart/form-data; boundary=%s", b"--%s\r\n\r\na\r\n--%sx\r\n--%s--\r\n"),
        (b"multipart/form-data; boundary=%s", b"--%s\r\n\r\na\n--%s\r\n--%s--\r\n"),
        (b"multipart/form-data; boundary=%s", b"%s--%s\r\n\r\na\r\n--%s--\r\n"),
        (b"multipart/form-data; boundary=%s; boundary=x", b"--%s\r\n\r\na\r\n--%s\r\n--%s--\r\n"),
        (b"multipart/mixed; boundary=%s", b"--%s\r\n\r\na\r\n--%s\r\n--%s--\r\n"),
    ],
    ids=["in a line", "beginning of a line", "LF", "preamble", "two boundaries", "other type"],
)
def test_boundary_matters_where_it_is_not_only_a_delimiter(content_type, body):
    first, second = (
        digest(body=body % ((boundary,) * 3), content_type=content_type % boundary)
        for boundary in (b"one", b"two")
    )
    assert first != second


def test_only_the_boundary_is_removed_from_the_header():
    body = b"--a\r\n\r\nb\r\n--a--\r\n"
    types = (
        b"multipart/form-data; boundary=a",
        b"multipart/form-d; boundary=a",
        b"Multipart/form-data; boundary=a",
    )
    assert len({digest(body=body, content_type=content_type) for content_type in types}) == 3
