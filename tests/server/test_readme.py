"""The README's commands and examples, run as they stand against a real server."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from serving import samples
from tests.conftest import ROOT

BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)
STARTERS = (
    "scripts/serve",
    "scripts/test",
)  # the two commands themselves: test_newcomer.py and whoever runs this
EXAMPLES = [(kind, text) for kind, text in BLOCKS if not text.startswith(STARTERS)]


@pytest.fixture(scope="module")
def folder(server, tmp_path_factory) -> Path:
    """Where the README's relative paths lead: its samples."""
    folder = tmp_path_factory.mktemp("readme")
    (folder / ".run").mkdir()
    samples.write(folder / ".run" / "samples")
    return folder


def at(server, text: str) -> str:
    """The example with the addresses of the server under test."""
    text = text.replace("scripts/predict", str(ROOT / "scripts" / "predict"))
    text = text.replace("http://127.0.0.1:8080", server.inference).replace(
        "127.0.0.1:7070", server.grpc_inference
    )
    endpoints = f"Endpoints({server.inference!r}, {server.management!r}, {server.metrics!r}, "
    endpoints += f"{server.grpc_inference!r}, {server.grpc_management!r})"
    text = text.replace("from client import Client", "from client import Client, Endpoints")
    return text.replace("Client() as", f"Client(endpoints={endpoints}) as")


def port(address: str) -> str:
    return address.rpartition(":")[2]


def run(command: list[str], folder: Path, **environment: str) -> str:
    result = subprocess.run(
        command, cwd=folder, env=os.environ | environment, capture_output=True, text=True, timeout=120
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def test_there_are_examples_for_every_way():
    text = "".join(text for _, text in EXAMPLES)
    for word in ("curl", "Client()", "PredictionsRequest", "InferenceClient", "scripts/predict"):
        assert word in text


@pytest.mark.parametrize("number", range(len(EXAMPLES)))
def test_an_example(server, folder, number):
    kind, text = EXAMPLES[number]
    if kind == "python":
        output = run([sys.executable, "-c", at(server, text)], folder, PYTHONPATH=str(ROOT))
    else:
        ports = f"--port {port(server.inference)} --grpc-port {port(server.grpc_inference)}"
        text = re.sub(r"^(scripts/predict .*)$", rf"\1 {ports}", text, flags=re.MULTILINE)
        output = run(["bash", "-ec", at(server, text)], folder)
    assert output.strip()
    assert "error" not in output.lower()
