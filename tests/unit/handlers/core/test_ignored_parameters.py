"""Tests of ignored parameters: exactly the values that docs/api.md lists are accepted."""

from pathlib import Path

import pytest

from handlers.core import ignored_parameters
from handlers.core.errors import InvalidParameter, InvalidRequest
from handlers.core.ignored_parameters import (
    GENERATION,
    OPEN_INFERENCE,
    OPTIONS,
    SIGNATURE_NAME,
    IgnoredParameter,
    check_options,
    drop_ignored,
)

DOCS = Path(__file__).resolve().parents[4] / "docs" / "api.md"
LISTED = (IgnoredParameter("beams", (1.0, 0), "a client"), IgnoredParameter("echo", (False,), "a client"))


def test_null_and_ignored_parameters_are_dropped():
    assert drop_ignored({"beams": 1, "echo": False, "top_k": 3, "null": None}, LISTED) == {"top_k": 3}
    assert drop_ignored({"beams": 0, "echo": None}, LISTED) == {}


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"beams": 2}, "'beams' is not adjustable: set it to 1.0 or 0 or omit it, not 2"),
        ({"beams": True}, "set it to 1.0 or 0"),
        ({"beams": "1"}, "set it to 1.0 or 0"),
        ({"beams": [1]}, "set it to 1.0 or 0"),
        ({"echo": 0}, "set it to false"),
        ({"echo": True}, "set it to false"),
    ],
)
def test_other_value_of_ignored_parameter_is_rejected(parameters, words):
    with pytest.raises(InvalidParameter) as caught:
        drop_ignored(parameters, LISTED)
    assert words in caught.value.message


def test_triton_parameters_must_be_integers():
    assert drop_ignored({"timeout": 5_000_000, "priority": 0}, OPEN_INFERENCE) == {}
    for wrong in ({"timeout": -1}, {"priority": True}, {"timeout": "5"}, {"priority": 1.5}):
        with pytest.raises(InvalidParameter, match="an integer of at least 0"):
            drop_ignored(wrong, OPEN_INFERENCE)


def test_hub_options_are_ignored_and_others_rejected():
    check_options({"wait_for_model": True, "use_cache": False, "signal": {}})
    check_options({})
    with pytest.raises(
        InvalidRequest,
        match=r"unknown option 'num_beams'.*send the model's parameters in the field 'parameters'",
    ):
        check_options({"num_beams": 4})
    with pytest.raises(InvalidRequest, match="'options' must be an object"):
        check_options([])


def test_documentation_lists_all_ignored_parameters():
    text = DOCS.read_text(encoding="utf-8")
    section = text.partition("## Ignored parameters")[2].partition("\n## ")[0]
    for ignored in (*GENERATION, *OPEN_INFERENCE, SIGNATURE_NAME):
        if ignored.kind is not None:
            assert f"`{ignored.name}" in section
            continue
        values = [
            ignored_parameters._as_json(value).removesuffix(".0").strip("'") for value in ignored.values
        ]
        row = next(line for line in section.splitlines() if f"`{ignored.name}" in line)
        assert all(f"`{value}`" in row or f"`{ignored.name}: {value}`" in row for value in values), ignored
    assert all(f"`{name}`" in section for name in OPTIONS)
