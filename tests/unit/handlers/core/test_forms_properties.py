"""Property tests of urlencoded forms: fields survive a round trip, and any body is parsed or rejected."""

from contextlib import suppress
from urllib.parse import quote, quote_plus, unquote_to_bytes

import hypothesis
from hypothesis import strategies as st

from handlers.core.errors import InvalidRequest
from handlers.core.forms import check_complete_form, parse_form

URLENCODED = "application/x-www-form-urlencoded"
PAYLOAD_FIELDS = ("text", "data")
NAMES = st.from_regex(r"[A-Za-z_][A-Za-z0-9_.-]{0,9}", fullmatch=True)
VALUES = st.text(max_size=40)
ENCODERS = st.sampled_from([quote, quote_plus, lambda text: quote(text, safe="!~*'()")])
FORMS = st.dictionaries(NAMES, VALUES, max_size=4).map(lambda fields: {"text": "x", **fields})
FRAGMENTS = st.sampled_from(
    [b"text=", b"&", b"=", b"%", b"%4", b"%41", b"+", b"\n", b"num_beams=2", b"{}", b"\xff"]
)
BODIES = st.lists(FRAGMENTS | st.binary(max_size=8), max_size=12).map(b"".join)


def encode(form, encoder):
    return "&".join(f"{name}={encoder(value)}" for name, value in form.items()).encode()


@hypothesis.given(FORMS, ENCODERS)
def test_encoded_form_is_parsed_back(form, encoder):
    fields, headers = parse_form(URLENCODED, {"body": encode(form, encoder)}, {"a": "b"}, PAYLOAD_FIELDS)
    assert fields == {name: value.encode() for name, value in form.items()}
    assert headers == {"a": "b"}


@hypothesis.given(BODIES)
def test_any_body_is_parsed_unchanged_or_rejected(body):
    with suppress(InvalidRequest):
        fields, _ = parse_form(URLENCODED, {"body": body}, {}, PAYLOAD_FIELDS)
        if list(fields) == ["body"]:
            assert fields["body"] == body
        else:
            decoded = b"&" + unquote_to_bytes(body.replace(b"+", b" ")) + b"&"
            assert all(b"=%b&" % value in decoded for value in fields.values())


@hypothesis.given(FORMS, ENCODERS)
def test_length_of_complete_form_is_accepted(form, encoder):
    fields = {name: value.encode() for name, value in form.items()}
    check_complete_form(fields, str(len(encode(form, encoder))))


@hypothesis.given(FORMS, ENCODERS)
def test_form_shorter_than_its_fields_is_rejected(form, encoder):
    """No encoding of the fields is shorter than the fields."""
    fields = {name: value.encode() for name, value in form.items()}
    least = len(b"&".join(b"=".join((name.encode(), value)) for name, value in fields.items()))
    try:
        check_complete_form(fields, str(least - 1))
    except InvalidRequest:
        return
    raise AssertionError("the form was accepted")
