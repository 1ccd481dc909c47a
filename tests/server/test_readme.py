"""The README's commands and examples, run as they stand against a real server."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from serving import samples
from tests.conftest import ROOT
from tests.live_server import free_offset
from training.pictures import picture
from training.reports import report

BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)
COMMANDS = [text for _, text in BLOCKS if text.startswith(("scripts/serve", "scripts/test"))]
EXAMPLES = [(kind, text) for kind, text in BLOCKS if kind in ("bash", "python") and text not in COMMANDS]
ANSWERS = [text for kind, text in BLOCKS if kind == "text"]


@pytest.fixture(scope="module")
def folder(server, tmp_path_factory) -> Path:
    """Where the README's relative paths lead: its samples."""
    folder = tmp_path_factory.mktemp("readme")
    (folder / ".run").mkdir()
    samples.write(folder / ".run" / "samples")
    return folder


def at(server, text: str) -> str:
    """The example with the addresses of the server under test, and curl failing where the server says no."""
    for ours, theirs in (
        ("scripts/predict", f"{ROOT}/scripts/predict"),
        ("curl ", "curl -sS --fail-with-body "),
        ("http://127.0.0.1:8080", server.inference),
        ("127.0.0.1:7070", server.grpc_inference),
        ("from client import Client", "from client import Client, Endpoints"),
        ("Client() as", f"Client(endpoints={server.endpoints!r}) as"),
    ):
        text = text.replace(ours, theirs)
    ports = [address.rpartition(":")[2] for address in (server.inference, server.grpc_inference)]
    options = "--port {} --grpc-port {}".format(*ports)
    return re.sub(r"^(\S+/scripts/predict .*)$", rf"\1 {options}", text, flags=re.MULTILINE)


def run(command: list[str], folder: Path, **environment: str) -> str:
    result = subprocess.run(
        command, cwd=folder, env=os.environ | environment, capture_output=True, text=True, timeout=240
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def test_there_are_examples_for_every_way():
    text = "".join(text for _, text in EXAMPLES)
    for word in ("curl", "Client()", "PredictionsRequest", "InferenceClient", "scripts/predict"):
        assert word in text


def test_the_answers_that_it_shows_are_the_true_ones():
    """Those of the examples are compared with the same truth below."""
    assert len(ANSWERS) == 3
    for answer in ANSWERS:
        assert picture(7, 0)[0] in answer
        assert report(7, 0)[1] in answer


@pytest.mark.parametrize("number", range(len(EXAMPLES)))
def test_an_example_answers_rightly(server, folder, number):
    kind, text = EXAMPLES[number]
    if "curl " in text and shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    command = [sys.executable, "-c"] if kind == "python" else ["bash", "-ec"]
    output = run([*command, at(server, text)], folder, PYTHONPATH=str(ROOT))
    assert picture(7, 0)[0] in output
    assert report(7, 0)[1] in output


def test_the_two_commands(tmp_path):
    """`scripts/test` is what runs this; `scripts/serve` starts in the background here, elsewhere, and ends again."""
    assert [command.split()[0] for command in COMMANDS] == ["scripts/serve", "scripts/test"]
    place = ["--run-dir", str(tmp_path / "run")]
    options = [
        "--weights",
        "starter",
        "--store",
        str(tmp_path / "store"),
        "--port-offset",
        str(free_offset()),
    ]
    output = run([str(ROOT / "scripts" / "serve"), "resnet-50", "--detach", *options, *place], tmp_path)
    try:
        (command,) = [line for line in output.splitlines() if line.startswith("curl")]
        if shutil.which("curl"):
            assert picture(7, 0)[0] in run(["bash", "-ec", command], tmp_path)
        assert "starter" in run([str(ROOT / "scripts" / "status"), *place], tmp_path)
    finally:
        run([str(ROOT / "scripts" / "stop"), *place], tmp_path)
    status = subprocess.run([ROOT / "scripts" / "status", *place], capture_output=True, timeout=60)
    assert status.returncode == 3
