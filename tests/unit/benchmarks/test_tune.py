"""Which setting is taken, and how the configuration is changed."""

import zipfile
from types import SimpleNamespace

import pytest
import yaml

from benchmarks import tune
from benchmarks.errors import BenchError
from benchmarks.systems.base import Workplace
from benchmarks.tune import Setting, Trial, _settings, choose, subject_of
from benchmarks.tune_config import change, configured_copy, write
from benchmarks.work import Address
from torchserve_models.loadgen import Summary
from torchserve_models.packing.models import LAYOUT

CONFIG = """\
# What runs it.
minWorkers: 1
maxWorkers: 1   # never more
batchSize: 8
maxBatchDelay: 5
handler:
  engine: auto
  # decoded at once
  max_pixels: 50_000_000
  max_batch: 32  # of the network

responseTimeout: 60
"""


def trial(size, p50, rate, workers=1, errors=None):
    def summary(rate, p50):
        return Summary(rate, p50, p50, p50, errors or {}, 0.0, 100, 0.0)

    return Trial(Setting(size, workers), {1: summary(50, p50), 32: summary(rate, 100)})


def chosen(*trials):
    setting = choose(trials).setting
    return setting.batch_size, setting.workers


def test_the_fastest_is_taken():
    assert chosen(trial(1, 10, 80), trial(4, 10, 100), trial(8, 10, 90)) == (4, 1)


def test_of_nearly_equal_ones_the_smallest_batch():
    assert chosen(trial(2, 10, 98), trial(4, 10, 100), trial(8, 10, 99)) == (2, 1)
    assert chosen(trial(2, 10, 92), trial(4, 10, 100)) == (4, 1)


def test_of_nearly_equal_ones_the_fewest_workers():
    assert chosen(trial(4, 10, 100, workers=2), trial(4, 10, 99)) == (4, 1)
    assert chosen(trial(4, 10, 100, workers=2), trial(8, 10, 95)) == (8, 1)


def test_a_limit_inside_the_batch_only_where_it_gains_something():
    def limited(rate):
        return Trial(Setting(4, 1, max_batch=2), trial(4, 10, rate).closed)

    assert choose([trial(4, 10, 100), limited(102)]).setting.max_batch is None
    assert choose([trial(4, 10, 100), limited(110)]).setting.max_batch == 2


def test_an_idle_request_must_not_pay_for_it():
    assert chosen(trial(2, 20, 80), trial(4, 23.1, 200)) == (2, 1)  # more than 3 ms later
    assert chosen(trial(2, 20, 80), trial(4, 22.9, 200)) == (4, 1)


def test_of_a_few_long_answers_noise_is_no_reason():
    def batch(p50):
        return choose([trial(2, 400, 80), trial(4, p50, 200)], texts=True).setting.batch_size

    assert (batch(499), batch(501)) == (4, 2)
    assert choose([trial(2, 5, 80), trial(4, 7.9, 200)], texts=True).setting.batch_size == 4


def test_summarizers_are_tuned_at_full_size(tmp_path, monkeypatch):
    packed, place = [], Workplace(tmp_path, tmp_path, (), lambda _: None)
    monkeypatch.setattr(tune, "full_size", lambda model, folder: folder)
    monkeypatch.setattr(
        tune.texts_product,
        "packed",
        lambda model, place: packed.append(place.model) or SimpleNamespace(path=tmp_path / "x.mar"),
    )
    subject = subject_of("bart-large-cnn", place)
    assert packed == [tmp_path / "texts" / "bart-large"]
    assert (subject.archive, subject.texts) == (tmp_path / "x.mar", True)
    target = subject.requests(Address("127.0.0.1", 1))
    assert set(target.tokens) == {32}
    assert b"/predictions/bart-large-cnn" in target.requests[0]


def test_what_failed_or_made_errors_is_not_taken():
    broken = Trial(Setting(16), {}, "out of memory")
    assert chosen(broken, trial(8, 10, 200, errors={"HTTP 503": 1}), trial(1, 10, 50)) == (1, 1)
    with pytest.raises(BenchError, match="nothing was changed"):
        choose([broken])


def test_there_are_never_more_workers_than_cores():
    assert {setting.workers for setting in _settings(1)} == {1}
    assert {setting.workers for setting in _settings(2)} == {1, 2}


def test_only_the_numbers_change():
    wanted = Setting(4, 2, max_batch=4).changes()
    changed = change(CONFIG, wanted)
    expected = CONFIG.replace("minWorkers: 1", "minWorkers: 2").replace("maxWorkers: 1 ", "maxWorkers: 2 ")
    expected = expected.replace("batchSize: 8", "batchSize: 4")
    assert changed == expected.replace("max_batch: 32", "max_batch: 4")
    assert change(changed, wanted) == changed


def test_what_is_missing_is_added_where_it_belongs():
    assert yaml.safe_load(change("batchSize: 8\n", {"handler.max_batch": 4})) == {
        "batchSize": 8,
        "handler": {"max_batch": 4},
    }
    found = yaml.safe_load(
        change("handler:\n    engine: auto\nbatchSize: 8\n", {"handler.max_batch": 4, "a": 1})
    )
    assert found == {"a": 1, "handler": {"engine": "auto", "max_batch": 4}, "batchSize": 8}


def test_what_is_added_comes_last_in_its_section():
    assert change("handler:\n  a: 1\n\nb: 2\n", {"handler.c": 3}) == "handler:\n  a: 1\n  c: 3\n\nb: 2\n"


def test_a_number_that_is_right_is_not_written_anew():
    assert change("handler:\n  max_pixels: 50_000_000\n", {"handler.max_pixels": 50_000_000}).count("_") == 3


@pytest.mark.parametrize("name", ["resnet-50", "t5-small", "bart-large-cnn"])
def test_our_own_configurations_can_be_tuned(name):
    text = (LAYOUT.models / name / "model-config.yaml").read_text()
    before, after = yaml.safe_load(text), yaml.safe_load(change(text, Setting(3, 2).changes()))
    assert after == {**before, "batchSize": 3, "minWorkers": 2, "maxWorkers": 2}


def test_an_archive_gets_the_setting_and_stays_as_it_is_otherwise(tmp_path):
    with zipfile.ZipFile(tmp_path / "old.mar", "w") as old:
        old.writestr("model-config.yaml", CONFIG)
        old.writestr("model/weights", b"\x00\x01")
    configured_copy(tmp_path / "old.mar", tmp_path / "new.mar", Setting(2).changes())
    with zipfile.ZipFile(tmp_path / "new.mar") as new:
        assert new.read("model/weights") == b"\x00\x01"
        assert yaml.safe_load(new.read("model-config.yaml"))["batchSize"] == 2


def test_a_configuration_is_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / "model-config.yaml"
    path.write_text(CONFIG)
    write(path, Setting(4).changes())
    assert yaml.safe_load(path.read_text())["batchSize"] == 4
    path.write_text("{batchSize: 8, handler: {max_batch: 32}}\n")
    with pytest.raises(BenchError, match="by hand: batchSize: 4"):
        write(path, Setting(4).changes())
    assert path.read_text().startswith("{batchSize: 8")
    assert list(tmp_path.iterdir()) == [path]
