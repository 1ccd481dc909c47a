"""scripts/check-names."""

import subprocess
import sys

import pytest

from tests.conftest import ROOT


def check(folder, path, text):
    """Return the exit code and the output of the script for one file."""
    file = folder / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    done = subprocess.run(
        [sys.executable, ROOT / "scripts" / "check-names", path], cwd=folder, capture_output=True, text=True
    )
    return done.returncode, done.stdout


@pytest.mark.parametrize("package", ["benchmarks", "handlers/core", "torchserve_models/cli"])
@pytest.mark.parametrize("definition", ["def serve(): ...", "async def serve(): ..."])
def test_function_with_name_of_its_module_is_rejected(tmp_path, package, definition):
    path = f"{package}/serve.py"
    expected = f"{path}:2: serve: name the function differently from its module\n"
    assert check(tmp_path, path, f"import sys\n{definition}\n") == (1, expected)


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("handlers/serve.py", "def serve_command(): ...\n"),
        ("handlers/serve.py", "class Server:\n    def serve(self): ...\n"),
        ("training/serve.py", "def serve(): ...\n"),
        ("tests/unit/handlers/serve.py", "def serve(): ...\n"),
    ],
    ids=["other name", "method", "other folder", "tests"],
)
def test_other_functions_are_accepted(tmp_path, path, text):
    assert check(tmp_path, path, text) == (0, "")


def test_banned_word_is_rejected_with_better_word(tmp_path):
    code, output = check(tmp_path, "training/serve.py", "picture_size = 1\n")
    assert (code, output) == (1, "training/serve.py:1: picture_size: use 'image', not 'picture'\n")
