"""Names that can be registered, and names that can be part of a URL."""

import pytest

from torchserve_models.client.errors import InvalidRequest
from torchserve_models.client.names import check_addressable, check_name, is_addressable, is_name


@pytest.mark.parametrize("name", ["a", "resnet-50", "T5_small.v1", "0", "a" * 128])
def test_registrable_name_is_addressable(name):
    assert check_name(name) == check_addressable(name) == name


@pytest.mark.parametrize(
    "name", ["_x", "-x", ".x", "1.0+cu", "a b", "é", "a..b", "a%2fb", "a?b", "a" * 129, "..."]
)
def test_unusual_name_is_addressable_but_not_registrable(name):
    assert not is_name(name)
    assert is_addressable(name)


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "/", "a\n", "a\0", "\x7f", "\ud800"])
def test_name_that_cannot_be_in_url_is_rejected(name):
    assert not is_name(name)
    assert not is_addressable(name)


def test_endpoint_errors_say_what_to_do():
    with pytest.raises(
        InvalidRequest, match=r"letters, digits.*Hugging Face Hub, use its last part: 'resnet'"
    ):
        check_name("org/resnet")
    with pytest.raises(
        InvalidRequest, match=r"use gRPC for a model or version of this name; .*use its last part: 'resnet'"
    ):
        check_addressable("org/resnet")
