"""Parsers of the gateway's options: addresses and sizes."""

import pytest

from torchserve_models.cli.gateway_parsers import parse_cache_size, parse_listen_address


@pytest.mark.parametrize("text", ["127.0.0.1:8090", "[::1]:8090", "host:1"])
def test_listen_address_is_written_as_it_was_read(text):
    assert str(parse_listen_address(text)) == text


@pytest.mark.parametrize(("text", "size"), [("0", 0), ("1000", 1000), ("64k", 2**16), ("256M", 2**28)])
def test_cache_size_has_a_unit(text, size):
    assert parse_cache_size(text) == size
