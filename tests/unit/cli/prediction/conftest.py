"""Fixture that runs `predict` against a fake TorchServe."""

import io
import json
import sys

import pytest

from tests.unit.client.fake_torchserve import over_http
from torchserve_models.cli import main


@pytest.fixture
def predict(fake, capsys, monkeypatch, tmp_path):
    """Function that runs `predict` in an empty folder and returns exit code, JSON lines and stderr."""
    monkeypatch.chdir(tmp_path)
    with over_http(fake.handle_rest) as port:

        def run(*arguments, stdin=None, json_lines=True):
            if stdin is not None:
                monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
            code = main(["predict", *map(str, arguments), "--port", str(port)])
            output = capsys.readouterr()
            lines = output.out.splitlines()
            return code, [json.loads(line) for line in lines] if json_lines else lines, output.err

        yield run
