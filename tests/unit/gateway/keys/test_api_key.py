"""The text, the digest and the scopes of an API key."""

import hashlib
import re
from datetime import UTC, datetime, timedelta

import pytest

from torchserve_models.gateway.keys.api_key import ApiKey, check_scope, parse_key_id

LATER = datetime.now(UTC) + timedelta(days=1)


def test_text_of_a_key_has_256_random_bits_and_is_not_stored():
    key, text = ApiKey.create("shop", ("inference",))
    other, other_text = ApiKey.create("shop", ("inference",))
    assert re.fullmatch(rf"tsm_{key.id}_[A-Za-z0-9_-]{{43}}", text)
    assert key.digest == hashlib.sha256(text.encode()).hexdigest()
    assert (key.id, text) != (other.id, other_text)
    secret = text.rpartition("_")[2][-20:]
    assert secret not in repr(key)
    assert secret not in str(key.as_json())


def test_key_matches_only_its_text():
    key, text = ApiKey.create("shop", ("inference",))
    assert key.matches(text)
    for wrong in ("", text[:-1], text + "A", text.upper(), text.replace(key.id, "0" * 12), text + "\u00e9"):
        assert not key.matches(wrong)


def test_expired_key_does_not_match():
    key, text = ApiKey.create("shop", ("inference",), expires=LATER)
    assert key.matches(text)
    key, text = ApiKey.create("shop", ("inference",), expires=datetime.now(UTC))
    assert key.has_expired()
    assert not key.matches(text)


@pytest.mark.parametrize(
    ("scopes", "one", "other", "every", "any_model"),
    [
        (("inference",), True, True, True, True),
        (("inference:one",), True, False, False, True),
        (("inference:one", "inference:other"), True, True, False, True),
        (("management",), False, False, False, False),
        (("metrics", "inference:other"), False, True, False, True),
    ],
)
def test_scopes_select_models(scopes, one, other, every, any_model):
    key, _ = ApiKey.create("shop", scopes)
    assert (key.allows_model("one"), key.allows_model("other")) == (one, other)
    assert (key.allows_every_model, key.allows_any_model) == (every, any_model)


@pytest.mark.parametrize(
    "scope", ["", "Inference", "inference:", "inference:a b", "inference:a/b", "admin", "*"]
)
def test_unknown_scope_is_rejected(scope):
    with pytest.raises(ValueError, match="is not a scope; use inference, inference:MODEL"):
        check_scope(scope)
    with pytest.raises(ValueError, match="is not a scope"):
        ApiKey.create("shop", (scope,))


def test_key_survives_json():
    for expires, rate in ((None, None), (LATER, 5)):
        key, _ = ApiKey.create("caf\u00e9", ("inference", "metrics"), expires=expires, rate=rate)
        assert ApiKey.from_json(key.as_json()) == key


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": ""}, "is not a name"),
        ({"name": "a\nb"}, "is not a name"),
        ({"digest": "ab"}, "is not a SHA-256 digest"),
        ({"scopes": []}, "at least one scope"),
        ({"rate": 0}, "at least 1 request per second"),
        ({"expires": "2026-01-01T00:00:00"}, "has no time zone"),
        ({"created": "yesterday"}, "yesterday"),
    ],
)
def test_invalid_json_is_rejected(change, message):
    key, _ = ApiKey.create("shop", ("inference",))
    with pytest.raises(ValueError, match=message):
        ApiKey.from_json(key.as_json() | change)


@pytest.mark.parametrize(
    "text", ["", "tsm_", "malformed", "tsm_0123456789ab_short", "tsm_0123456789AB_" + "a" * 43]
)
def test_other_texts_have_no_id(text):
    assert parse_key_id(text) is None
    assert parse_key_id("tsm_0123456789ab_" + "a" * 43) == "0123456789ab"
