"""Property tests of multipart forms: forms survive a round trip, and any body is parsed or rejected."""

from contextlib import suppress

import hypothesis
from hypothesis import strategies as st

from handlers.core.errors import InvalidRequest
from handlers.core.multipart import parse_multipart

BOUNDARY = "2f7c"
CONTENT_TYPE = f"multipart/form-data; boundary={BOUNDARY}"
NAMES = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E, exclude_characters='"\\'), min_size=1)
PART_TYPES = st.sampled_from(["", "image/jpeg", "text/plain; charset=utf-8"])
CONTENTS = st.binary(max_size=60).filter(lambda content: f"--{BOUNDARY}".encode() not in content)
FORMS = st.dictionaries(NAMES, st.tuples(CONTENTS, PART_TYPES), max_size=5)
FRAGMENTS = st.sampled_from(
    [
        b"--2f7c",
        b"--2f7c--",
        b"\r\n",
        b"\r\n\r\n",
        b" ",
        b'Content-Disposition: form-data; name="a"',
        b"Content-Disposition: form-data; name*=utf-8''b; filename=c",
        b"Content-Transfer-Encoding: base64",
        b"Content-Type: multipart/mixed; boundary=2f7d",
    ]
)
BODIES = st.lists(FRAGMENTS | st.binary(max_size=8), max_size=12).map(b"".join)


def encode(form: dict[str, tuple[bytes, str]]) -> bytes:
    """Return the body of a form as RFC 7578 describes it."""
    parts = []
    for name, (content, part_type) in form.items():
        head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"\r\n'
        if part_type:
            head += f"Content-Type: {part_type}\r\n"
        parts.append(head.encode() + b"\r\n" + content + b"\r\n")
    return b"".join(parts) + f"--{BOUNDARY}--\r\n".encode()


@hypothesis.given(FORMS)
def test_encoded_form_is_parsed_back(form):
    fields, headers = parse_multipart(encode(form), CONTENT_TYPE)
    assert fields == {name: content for name, (content, _) in form.items()}
    assert headers == {name: {"content-type": part_type} for name, (_, part_type) in form.items()}


@hypothesis.given(FORMS.filter(bool), st.data())
def test_truncated_form_is_rejected(form, data):
    body = encode(form).removesuffix(b"--\r\n")
    cut = body[: data.draw(st.integers(0, len(body)))]
    try:
        parse_multipart(cut, CONTENT_TYPE)
    except InvalidRequest:
        return
    raise AssertionError(f"{cut!r} was accepted")


@hypothesis.given(BODIES)
def test_any_body_is_parsed_or_rejected(body):
    with suppress(InvalidRequest):
        fields, headers = parse_multipart(body, CONTENT_TYPE)
        assert fields.keys() == headers.keys()
        assert all(content in body for content in fields.values())


@hypothesis.given(st.text(max_size=40), BODIES)
def test_any_content_type_is_parsed_or_rejected(parameters, body):
    with suppress(InvalidRequest):
        parse_multipart(body, f"multipart/form-data; {parameters}")
