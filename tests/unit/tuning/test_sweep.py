"""`scripts/tune`: order and requests of a sweep, with a stub server."""

import json
import zipfile
from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import yaml

from torchserve_models.cli import main
from torchserve_models.loadgen import Measurement
from torchserve_models.tuning import TuningError, sweep, tune
from torchserve_models.tuning.selection import BatchSetting
from torchserve_models.tuning.workload import load_images, load_texts, text_target


class FakeGenerator:
    """A stub server that takes 10 ms plus 5 ms per request for a batch, and records its calls."""

    def __init__(self, folder):
        self._folder, self.calls = folder, []

    def closed_loop(self, target, connections, seconds):
        with zipfile.ZipFile(self._folder / "store" / "m.mar") as archive:
            config = yaml.safe_load(archive.read("model-config.yaml"))
        batch = min(connections, config["batchSize"])
        latency = 0.01 + 0.005 * batch
        self.calls.append((config["batchSize"], config["maxWorkers"], connections))
        return Measurement(1.0, int(batch / latency), [latency])

    def drained_loop(self, target, connections, seconds, min_requests):
        return self.closed_loop(target, connections, seconds)


@pytest.fixture
def run_sweep(monkeypatch, tmp_path):
    server = SimpleNamespace(inference="http://127.0.0.1:1", failure=None)
    monkeypatch.setattr(sweep.serving, "start", lambda *_, **__: nullcontext(server))
    monkeypatch.setattr(sweep, "wait_until_answering", lambda *_: None)
    monkeypatch.setattr(sweep, "usable_cores", lambda: 1)
    with zipfile.ZipFile(tmp_path / "packed.mar", "w") as archive:
        archive.writestr("model-config.yaml", "batchSize: 3\n")

    def run(samples):
        generator, lines = FakeGenerator(tmp_path), []
        best = sweep.BatchSweep(
            "m", tmp_path / "packed.mar", samples, generator, (1, 32), 1.0, tmp_path, lines.append
        ).run()
        return best.setting, generator.calls, lines

    return run


def test_sweep_measures_every_batch_size_and_selects_the_best(run_sweep):
    best, calls, lines = run_sweep(["text"])
    assert best == BatchSetting(16)  # 177 of at most 188 requests/s
    assert calls[:3] == [(1, 1, 32), (1, 1, 1), (1, 1, 32)]  # warm-up, then each number of clients
    assert [batch for batch, _, _ in calls[::3]] == [1, 2, 4, 8, 16, 32]
    assert "| 16 | 1 |  | 66.0, 15.0 | 177.0, 90.0 |" in lines


def test_image_sweep_also_tries_limits_within_the_best_batch(run_sweep):
    best, calls, lines = run_sweep([b"jpeg"])
    assert best == BatchSetting(16)
    assert [batch for batch, _, _ in calls[18::3]] == [16, 16, 16, 16]
    assert sum(line.startswith("| 16 | 1 | ") for line in lines) == 5


def test_text_request_asks_for_a_fixed_length():
    [request] = text_target("http://127.0.0.1:8080", "t5-small", ["a text"]).requests
    head, _, body = request.partition(b"\r\n\r\n")
    assert head.startswith(b"POST /predictions/t5-small HTTP/1.1\r\nHost: 127.0.0.1:8080\r\n")
    parameters = json.loads(body)["parameters"]
    assert parameters["min_new_tokens"] == parameters["max_new_tokens"] == 32


def test_inputs_are_files_of_a_folder_or_samples(tmp_path):
    (tmp_path / "b.JPG").write_bytes(b"two")
    (tmp_path / "a.jpeg").write_bytes(b"one")
    assert load_images(tmp_path) == [b"one", b"two"]
    assert all(image.startswith(b"\xff\xd8") for image in load_images(None))
    assert {len(text.split()) for text in load_texts(None)} == {190}
    with pytest.raises(TuningError, match=r"no input files; allowed suffixes: \.txt"):
        load_texts(tmp_path)


def test_unknown_model_cannot_be_tuned(capsys):
    with pytest.raises(TuningError, match="models in models/: bart-large-cnn, mit-b0, resnet-152"):
        tune("nothing")
    assert main(["tune", "nothing"]) == 1
    assert "error: unknown model 'nothing'" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["--seconds", "0"], ["--concurrency", "1,x"], ["--processes", "0"]])
def test_invalid_number_is_a_usage_error(arguments, capsys):
    assert main(["tune", "m", *arguments]) == 2
    assert arguments[0] in capsys.readouterr().err
