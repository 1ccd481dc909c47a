"""Tests of the `chaos` command line."""

import re

import pytest

from tests.chaos import cli
from tests.chaos.scenarios import SCENARIOS
from tests.conftest import ROOT


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--kinds", "worker,earthquake"], "unknown kind 'earthquake'; known: worker, java"),
        (["--minutes", "0"], "0 is not a number of minutes (above 0, at most 120)"),
        (["--minutes", "1e9"], "is not a number of minutes"),
        (["--via", "pigeon"], "'pigeon' is not one of"),
        (["--scenario", "nothing"], "unknown scenario 'nothing'"),
        (["--scenario", "sigterm", "--port-offset", "100"], "--port-offset cannot be used with --scenario"),
    ],
)
def test_invalid_option_is_a_usage_error(arguments, message, capsys):
    assert cli.main(arguments) == 2
    assert message in capsys.readouterr().err


def test_documentation_lists_every_scenario():
    page = (ROOT / "docs" / "chaos.md").read_text()
    assert set(re.findall(r"^\| `([a-z-]+)` \|", page, re.MULTILINE)) == set(SCENARIOS)
