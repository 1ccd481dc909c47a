"""Validation of model names and versions."""

import pytest

from torchserve_models.packing import errors
from torchserve_models.packing.names import check_name, check_version

WRONG = ["", ".", "..", "a..b", "../x", "a/b", "a b", "-a", "_a", ".a", "ä", "a\n", "a:b", "a%2fb", "a" * 129]


@pytest.mark.parametrize("name", WRONG)
def test_invalid_names_and_versions_are_rejected(name: str) -> None:
    with pytest.raises(errors.InvalidOptions, match="name"):
        check_name(name)
    with pytest.raises(errors.InvalidOptions, match="version"):
        check_version(name)


@pytest.mark.parametrize("name", ["a", "resnet-50", "T5_small.v1", "0", "a" * 128, "starter-0a1b2c3d"])
def test_valid_names_are_accepted(name: str) -> None:
    check_name(name)
    check_version(name)


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("org/resnet", "scripts/pack resnet --from org/resnet"),
        ("org/res net/", "scripts/pack res-net"),
        ("my model", "scripts/pack my-model"),
        ("_hidden", "scripts/pack hidden"),
        ("a..b", "scripts/pack a.b"),
        ("a" * 200, "scripts/pack " + "a" * 128),
        ("???", "at most 128 characters."),
    ],
)
def test_error_suggests_a_valid_name(name: str, hint: str) -> None:
    with pytest.raises(errors.InvalidOptions) as error:
        check_name(name)
    assert str(error.value).endswith(hint)
