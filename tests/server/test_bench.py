"""scripts/bench with a running server."""

import json
import subprocess

import pytest

from tests.conftest import ROOT


def run_bench(server, model, folder, *options):
    command = [ROOT / "scripts" / "bench", "--url", server.inference, "--model", model]
    command += ["--out", folder / "out", "--work", folder / "work", *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=240)


@pytest.mark.parametrize("model", ["resnet-50", "t5-small"])
def test_running_server_is_measured(server, tmp_path, model):
    options = ["--concurrency", "1,2", "--seconds", "3", "--rounds", "1", "--quick"]
    bench = run_bench(server, model, tmp_path, *options)
    assert bench.returncode == 0, bench.stderr
    [system] = json.loads((tmp_path / "out" / "results.json").read_text())["systems"]
    assert list(system["closed"]) == ["1", "2"]
    for summary in system["closed"].values():
        assert summary["requests_per_second"] > 0
        assert summary["p50"] <= summary["p99"]
        assert summary["errors"] == {}
    assert [round(summary["share_of_capacity"], 1) for summary in system["open"]] == [0.3, 0.7, 1.5]
    assert model in bench.stdout
    assert "Open loop" in bench.stdout


def test_unknown_model_is_rejected(server, tmp_path):
    bench = run_bench(server, "nothing", tmp_path)
    assert bench.returncode == 1
    assert "HTTP 404" in bench.stderr
    assert "Traceback" not in bench.stderr
