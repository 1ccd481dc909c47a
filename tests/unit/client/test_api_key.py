"""The API key of a client is sent with every request, and appears nowhere else."""

import logging

import pytest

from torchserve_models.client import Client
from torchserve_models.client.settings import Settings

KEY = "tsm_0123456789ab_" + "k" * 43


@pytest.mark.parametrize("protocol", ["rest", "open-inference"])
def test_key_is_sent_as_bearer_token(call, connection, fake, protocol, caplog):
    caplog.set_level(logging.DEBUG)
    options = {"protocol": protocol, "api_key": KEY, **connection}
    call(lambda client: client.classify("images", b"x"), **options)
    call(lambda client: client.list_models(), **options)
    call(lambda client: client.metrics(), **options)
    assert len(fake.headers) >= 3
    assert {headers["authorization"] for headers in fake.headers} == {f"Bearer {KEY}"}
    assert KEY not in caplog.text


def test_key_is_sent_as_metadata(call, connection, fake, caplog):
    caplog.set_level(logging.DEBUG)
    call(lambda client: client.classify("images", b"x"), protocol="grpc", api_key=KEY, **connection)
    assert fake.metadata[-1]["authorization"] == f"Bearer {KEY}"
    assert KEY not in caplog.text


@pytest.mark.parametrize("protocol", ["rest", "grpc"])
def test_header_of_a_call_replaces_the_key(call, connection, fake, protocol):
    headers = {"Authorization": "Basic eDp5"}
    call(lambda c: c.classify("images", b"x", headers=headers), protocol=protocol, api_key=KEY, **connection)
    sent = fake.headers[-1]["authorization"] if protocol == "rest" else fake.metadata[-1]["authorization"]
    assert sent == "Basic eDp5"


def test_nothing_is_sent_without_a_key(call, connection, fake):
    call(lambda client: client.classify("images", b"x"), **connection)
    assert "authorization" not in fake.headers[-1]


def test_key_is_not_shown():
    with Client(api_key=KEY) as client:
        assert KEY not in repr(client) + repr(client.settings) + str(client.settings)


@pytest.mark.parametrize("key", ["", "a b", "a\n", "caf\u00e9"])
def test_key_that_cannot_be_sent_is_rejected_without_showing_it(key):
    with pytest.raises(ValueError, match="printable ASCII") as caught:
        Settings(api_key=key)
    assert not key or key not in str(caught.value)
