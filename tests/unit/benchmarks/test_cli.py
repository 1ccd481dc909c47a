"""The options of scripts/bench and their errors."""

import pytest

from benchmarks import cli


def test_help_has_all_options(capsys):
    assert cli.main(["--help"]) == 0
    options = {"--quick", "--url", "--systems", "--texts", "--images", "--isa", "--out", "--write-docs"}
    assert options <= set(capsys.readouterr().out.replace("=", " ").split())


@pytest.mark.parametrize("arguments", [["--seconds", "0"], ["--concurrency", "1,x"], ["--rounds", "0"]])
def test_invalid_number_is_a_usage_error(arguments, capsys):
    assert cli.main(arguments) == 2
    assert arguments[0] in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--systems", "flask,nothing"], "valid names: ceiling, "),
        (["--url", "http://127.0.0.1:1"], "--model"),
        (["--write-docs", "--quick"], "--quick"),
        (["--write-docs", "--systems", "flask"], "--systems"),
        (["--write-docs", "--texts", "--models", "t5-small"], "--models"),
        (["--texts", "--images", "/nowhere"], "--images"),
        (["--isa", "sse9"], "valid names: avx2, "),
        (["--isa", "avx2", "--url", "http://x:1", "--model", "m"], "--url"),
        (["--texts", "--models", "bart"], "valid names: t5-small, bart-large"),
        (["--texts", "--workloads", "e"], "valid names: a, b, c, d"),
        (["--texts", "--systems", "flask"], "valid names: in-process-fp32, "),
        (["--workloads", "a"], "--texts"),
        (["--images", "/nowhere", "--url", "http://x:1", "--model", "m"], "/nowhere"),
        (["--url", "https://127.0.0.1:1", "--model", "m"], "http://HOST:PORT"),
        (["--url", "http://127.0.0.1:1", "--model", "m"], "connection lost"),
    ],
)
def test_invalid_combination_is_an_error_without_traceback(arguments, message, tmp_path, capsys):
    assert cli.main([*arguments, "--work", str(tmp_path)]) == 1
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error


def test_work_folder_is_used_by_one_run_at_a_time(tmp_path, capsys):
    with cli._lock(tmp_path):
        assert cli.main(["--systems", "flask", "--work", str(tmp_path)]) == 1
    assert "another run uses" in capsys.readouterr().err
