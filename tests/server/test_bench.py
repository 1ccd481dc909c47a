"""scripts/bench measures a server that runs, as an operator would."""

import json
import subprocess

import pytest

from tests.conftest import ROOT


@pytest.mark.parametrize(("model", "rates"), [("resnet-50", [1, 2]), ("t5-small", [1, 2])])
def test_a_running_server_is_measured(server, tmp_path, model, rates):
    options = ["--concurrency", "1,2", "--seconds", "1", "--rounds", "1", "--quick"]
    folders = ["--out", tmp_path / "out", "--work", tmp_path / "work"]
    command = [ROOT / "scripts" / "bench", "--url", server.inference, "--model", model, *options, *folders]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "out" / "results.json").read_text())
    [system] = found["systems"]
    assert [int(concurrency) for concurrency in system["closed"]] == rates
    for each in system["closed"].values():
        assert each["requests_per_second"] > 0
        assert each["p50"] <= each["p99"]
        assert each["errors"] == {}
    assert [round(each["share_of_capacity"], 1) for each in system["open"]] == [0.3, 0.7, 1.5]
    assert model in done.stdout
    assert "Open loop" in done.stdout


def test_a_model_that_is_not_served_is_said(server, tmp_path):
    command = [
        ROOT / "scripts" / "bench",
        "--url",
        server.inference,
        "--model",
        "nothing",
        "--work",
        tmp_path,
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert "HTTP 404" in done.stderr
    assert "Traceback" not in done.stderr
