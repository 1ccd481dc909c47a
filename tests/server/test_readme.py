"""The README's commands and examples, run with a real server."""

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.doc_pages import RUN, Checkout, blocks, is_tested_elsewhere, missing_tools
from tests.live_server import free_offset
from training.images import draw_image
from training.reports import draw_example

BLOCKS = [block for block in blocks(ROOT / "README.md") if block.kind in RUN]
COMMANDS = [block.text for block in BLOCKS if block.text.startswith(("scripts/serve", "scripts/test"))]
EXAMPLES = [block for block in BLOCKS if not is_tested_elsewhere(block)]
ANSWERS = [block.output for block in BLOCKS if block.output]


@pytest.fixture(scope="module")
def checkout(server, tmp_path_factory) -> Checkout:
    return Checkout(tmp_path_factory.mktemp("readme"), server)


def run(command: list[str], folder: Path) -> str:
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=240)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def test_readme_is_at_most_120_lines():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 120


def test_readme_has_examples_in_shell_and_python():
    text = "".join(block.text for block in EXAMPLES)
    for word in ("curl", "Client()"):
        assert word in text


def test_answers_in_the_readme_have_the_expected_label_and_summary():
    """The next test compares the output of the examples with the same label and summary."""
    assert len(ANSWERS) == 2
    for answer in ANSWERS:
        assert draw_image(7, 0)[0] in answer
        assert draw_example(7, 0)[1] in answer


@pytest.mark.parametrize("block", EXAMPLES, ids=lambda block: block.location)
def test_readme_example_gets_the_shown_answer(checkout, block):
    if lacking := missing_tools(block):
        pytest.skip(f"{', '.join(lacking)} is not installed")
    output = checkout.run(block)
    assert draw_image(7, 0)[0] in output
    assert draw_example(7, 0)[1] in output


def test_readme_commands_start_the_server(tmp_path):
    """Runs only `scripts/serve`, in the background, because `scripts/test` runs this test."""
    assert [command.split()[0] for command in COMMANDS] == ["scripts/serve", "scripts/test"]
    run_dir_options = ["--run-dir", str(tmp_path / "run")]
    options = [
        "--weights",
        "starter",
        "--store",
        str(tmp_path / "store"),
        "--port-offset",
        str(free_offset()),
    ]
    output = run(
        [str(ROOT / "scripts" / "serve"), "resnet-50", "--detach", *options, *run_dir_options], tmp_path
    )
    try:
        (command,) = [line for line in output.splitlines() if line.startswith("curl")]
        if shutil.which("curl"):
            assert draw_image(7, 0)[0] in run(["bash", "-ec", command], tmp_path)
        assert "starter" in run([str(ROOT / "scripts" / "status"), *run_dir_options], tmp_path)
    finally:
        run([str(ROOT / "scripts" / "stop"), *run_dir_options], tmp_path)
    status = subprocess.run([ROOT / "scripts" / "status", *run_dir_options], capture_output=True, timeout=60)
    assert status.returncode == 3
