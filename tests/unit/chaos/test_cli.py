"""The command line of scripts/chaos."""

import re

import pytest

from tests.chaos import cli
from tests.chaos.scenarios import SCENARIOS
from tests.conftest import ROOT


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--kinds", "worker,earthquake"], "unknown kind 'earthquake'; known: worker, java"),
        (["--minutes", "0"], "0 is not a number of minutes (0-120)"),
        (["--minutes", "1e9"], "is not a number of minutes"),
        (["--via", "pigeon"], "invalid choice: 'pigeon'"),
        (["--scenario", "nothing"], "invalid choice: 'nothing'"),
        (["--scenario", "sigterm", "--port-offset", "100"], "--port-offset is not for --scenario"),
    ],
)
def test_a_wrong_command_line_is_said(arguments, message, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(arguments)
    assert ended.value.code == 2
    assert message in capsys.readouterr().err


def test_the_page_names_every_scenario():
    page = (ROOT / "docs" / "chaos.md").read_text()
    assert set(re.findall(r"^\| `([a-z-]+)` \|", page, re.MULTILINE)) == set(SCENARIOS)
