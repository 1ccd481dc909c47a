"""A server with the starter models: its status, logs and printed commands."""

import json
import shutil
import subprocess

import httpx
import pytest

from tests.tools import needs
from torchserve_models.packing import read_provenance
from torchserve_models.serving.commands import status
from torchserve_models.serving.commands.samples import sample_commands
from torchserve_models.serving.run_config.run_dir import RunDir
from training.images import draw_image
from training.reports import draw_example

_, IMAGE = draw_image(77, 1)
TEXT, _ = draw_example(77, 1)


def lines(server):
    return sum(
        len(path.read_text(errors="replace").splitlines()) for path in (server.run_dir / "logs").iterdir()
    )


def predict(server, path, content=IMAGE):
    return httpx.post(f"{server.inference}/predictions/{path}", content=content, timeout=60)


def test_status_reports_the_served_models(server):
    assert server.ready()
    server_status = status.get_status(RunDir(server.run_dir))
    assert server_status.exit_code == 0
    report = status.as_json(server_status)
    assert json.loads(json.dumps(report)) == report
    assert [model["name"] for model in report["models"]] == sorted(server.models)
    for model in report["models"]:
        made = read_provenance(server.store / model["archive"])
        assert (model["version"], model["weights"], model["task"]) == (made.version, "starter", made.task)
        assert model["ready"]
        assert (model["busy"], model["in_flight"]) == (False, 0)
        assert model["queue"] == {"waiting": 0, "free": 100}
        assert [worker["status"] for worker in model["workers"]] == ["READY"]
        assert all(worker["memory"] > 2**20 for worker in model["workers"])


def test_status_table_names_every_model(server, capsys):
    status.print_status(status.get_status(RunDir(server.run_dir)))
    shown = capsys.readouterr().out
    for model in server.models:
        assert model in shown
    assert "starter" in shown
    assert server.inference in shown


@needs("curl")
def test_printed_commands_get_answers(server):
    printed = sample_commands(server.models, server.store, RunDir(server.run_dir).samples, server.endpoints)
    assert len(printed) == len(server.models)
    for command in printed:
        answer = subprocess.run(command, shell=True, capture_output=True, text=True, timeout=60)
        (first, *_) = json.loads(answer.stdout)
        assert set(first) in ({"label", "score"}, {"summary_text"})


def test_requests_are_not_logged(server):
    predict(server, "resnet-50")
    before = lines(server)
    for _ in range(20):
        assert predict(server, "resnet-50").status_code == 200
    assert predict(server, "resnet-50", b"no image").status_code == 400
    assert lines(server) == before


def test_version_in_the_url_is_answered(server):
    (described,) = httpx.get(f"{server.management}/models/resnet-50").json()
    version = described["modelVersion"]
    assert version.startswith("starter-")
    assert predict(server, f"resnet-50/{version}").status_code == 200
    assert predict(server, "resnet-50/starter-00000000").status_code == 404
    (same,) = httpx.get(f"{server.management}/models/resnet-50/{version}").json()
    assert same["workers"] == described["workers"]
    changed = httpx.put(f"{server.management}/models/resnet-50/{version}/set-default")
    assert changed.status_code == 200


def test_registration_outside_the_store_is_rejected(server, tmp_path):
    archive = server.store / "resnet-50.mar"
    shutil.copy(archive, tmp_path / "other.mar")
    for url in (f"file://{tmp_path}/other.mar", "http://127.0.0.1:9/other.mar", "../other.mar"):
        answer = httpx.post(f"{server.management}/models", params={"url": url}, timeout=30)
        assert answer.status_code in (400, 403, 404), (url, answer.text)
    listed = httpx.get(f"{server.management}/models").json()["models"]
    assert sorted(model["modelName"] for model in listed) == sorted(server.models)


@pytest.mark.parametrize(("size", "code"), [(15, 400), (17, 413)])
def test_body_over_the_limit_is_rejected_before_a_worker(server, size, code):
    assert predict(server, "resnet-50", b"x" * (size * 2**20)).status_code == code
    assert predict(server, "resnet-50").status_code == 200
