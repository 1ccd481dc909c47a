"""What changes nothing is passed over: exactly what docs/api.md lists, and nothing else."""

from pathlib import Path

import pytest

from handlers.core import passed_over
from handlers.core.errors import InvalidParameter, InvalidRequest
from handlers.core.passed_over import (
    GENERATION,
    OPEN_INFERENCE,
    OPTIONS,
    SIGNATURE_NAME,
    PassedOver,
    check_options,
    without,
)

DOCS = Path(__file__).resolve().parents[4] / "docs" / "api.md"
LISTED = (PassedOver("beams", (1.0, 0), "a client"), PassedOver("echo", (False,), "a client"))


def test_null_and_what_is_listed_are_left_out():
    assert without({"beams": 1, "echo": False, "top_k": 3, "null": None}, LISTED) == {"top_k": 3}
    assert without({"beams": 0, "echo": None}, LISTED) == {}


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"beams": 2}, "'beams' cannot be changed here: it must be 1.0 or 0, or left out, not 2"),
        ({"beams": True}, "must be 1.0 or 0"),
        ({"beams": "1"}, "must be 1.0 or 0"),
        ({"beams": [1]}, "must be 1.0 or 0"),
        ({"echo": 0}, "must be false"),
        ({"echo": True}, "must be false"),
    ],
)
def test_other_values_would_change_the_answer(given, words):
    """Case 11."""
    with pytest.raises(InvalidParameter) as caught:
        without(given, LISTED)
    assert words in caught.value.message


def test_tritons_own_are_numbers():
    assert without({"timeout": 5_000_000, "priority": 0}, OPEN_INFERENCE) == {}
    for wrong in ({"timeout": -1}, {"priority": True}, {"timeout": "5"}, {"priority": 1.5}):
        with pytest.raises(InvalidParameter, match="an integer of at least 0"):
            without(wrong, OPEN_INFERENCE)


def test_options_of_the_hub():
    """Case 11."""
    check_options({"wait_for_model": True, "use_cache": False, "signal": {}})
    check_options({})
    with pytest.raises(InvalidRequest, match=r"unknown option 'num_beams'.*go into the field 'parameters'"):
        check_options({"num_beams": 4})
    with pytest.raises(InvalidRequest, match="'options' must be an object"):
        check_options([])


def test_the_documentation_has_the_whole_list():
    """Case 11."""
    text = DOCS.read_text(encoding="utf-8")
    section = text.partition("## Passed over")[2].partition("\n## ")[0]
    for each in (*GENERATION, *OPEN_INFERENCE, SIGNATURE_NAME):
        if each.kind is not None:
            assert f"`{each.name}" in section
            continue
        values = [passed_over._as_json(value).removesuffix(".0").strip("'") for value in each.values]
        row = next(line for line in section.splitlines() if f"`{each.name}" in line)
        assert all(f"`{value}`" in row or f"`{each.name}: {value}`" in row for value in values), each
    assert all(f"`{name}`" in section for name in OPTIONS)
