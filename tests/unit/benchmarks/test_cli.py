"""The command line: what it offers, what it refuses."""

import pytest

from benchmarks import cli
from tests.conftest import ROOT


def test_help_names_what_can_be_asked(capsys):
    with pytest.raises(SystemExit) as end:
        cli.main(["--help"])
    assert end.value.code == 0
    text = capsys.readouterr().out
    for option in ("--quick", "--url", "--systems", "--images", "--out", "--write-docs"):
        assert option in text


@pytest.mark.parametrize("arguments", [["--seconds", "0"], ["--concurrency", "1,x"], ["--rounds", "0"]])
def test_numbers_that_make_no_sense_are_refused(arguments, capsys):
    with pytest.raises(SystemExit) as end:
        cli.main(arguments)
    assert end.value.code == 2
    assert arguments[0] in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--systems", "flask,nothing"], "known are ceiling, "),
        (["--url", "http://127.0.0.1:1"], "--model"),
        (["--write-docs", "--quick"], "--quick"),
        (["--write-docs", "--systems", "flask"], "--systems"),
        (["--texts", "--images", "/nowhere"], "--images"),
        (["--texts", "--processes", "2"], "--processes"),
        (["--workloads", "a"], "--texts"),
        (["--write-docs", "--texts", "--models", "t5-small"], "--models"),
        (["--url", "https://127.0.0.1:1", "--model", "m"], "http://HOST:PORT"),
        (["--url", "http://127.0.0.1:1", "--model", "m"], "connection lost"),
        (["--images", "/nowhere", "--systems", "flask", "--url", "http://x:1", "--model", "m"], "/nowhere"),
    ],
)
def test_what_cannot_be_measured_is_said_in_a_line(arguments, told, capsys):
    assert cli.main(arguments) == 1
    error = capsys.readouterr().err
    assert told in error
    assert "Traceback" not in error


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--models", "bart"], "known are t5-small, bart-large"),
        (["--workloads", "d"], "known are a, b, c"),
        (["--systems", "flask"], "known are in-process-fp32, "),
    ],
)
def test_texts_have_names_of_their_own(arguments, told, tmp_path, capsys):
    assert cli.main(["--texts", *arguments, "--work", str(tmp_path)]) == 1
    assert told in capsys.readouterr().err


def test_only_one_run_at_a_time_has_the_folder(tmp_path, capsys):
    with cli._alone(tmp_path):
        assert cli.main(["--systems", "flask", "--work", str(tmp_path)]) == 1
    assert "another run uses" in capsys.readouterr().err


def test_a_list_that_is_none_is_said_with_an_example(capsys):
    with pytest.raises(SystemExit):
        cli.main(["--concurrency", "1,x"])
    assert "expected numbers such as 1,8,32" in capsys.readouterr().err


def test_the_script_asks_for_the_command():
    assert 'python" -P -m benchmarks' in (ROOT / "scripts" / "bench").read_text()
