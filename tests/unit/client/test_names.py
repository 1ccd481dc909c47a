"""Names that can be registered, and names that can be asked for."""

import pytest

from torchserve_models.client.errors import InvalidRequest
from torchserve_models.client.names import check_addressable, check_name, is_addressable, is_name


@pytest.mark.parametrize("name", ["a", "resnet-50", "T5_small.v1", "0", "a" * 128])
def test_a_name_that_can_be_registered_can_be_asked_for(name):
    assert check_name(name) == check_addressable(name) == name


@pytest.mark.parametrize(
    "name", ["_x", "-x", ".x", "1.0+cu", "a b", "é", "a..b", "a%2fb", "a?b", "a" * 129, "..."]
)
def test_odd_names_can_be_asked_for_only(name):
    assert not is_name(name)
    assert is_addressable(name)


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "/", "a\n", "a\0", "\x7f", "\ud800"])
def test_names_that_cannot_be_in_a_url(name):
    assert not is_name(name)
    assert not is_addressable(name)


def test_the_messages_say_what_to_do():
    with pytest.raises(
        InvalidRequest, match=r"letters, digits.*Hugging Face Hub, take its last part: 'resnet'"
    ):
        check_name("org/resnet")
    with pytest.raises(InvalidRequest, match=r"which gRPC does not need; .*take its last part: 'resnet'"):
        check_addressable("org/resnet")
