"""Edits of model-config.yaml change only the given values."""

import zipfile

import pytest
import yaml

from torchserve_models.packing.models import LAYOUT
from torchserve_models.tuning import TuningError
from torchserve_models.tuning.config_file import copy_archive_with_config, edit_config, write_config
from torchserve_models.tuning.selection import BatchSetting

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


def test_comments_and_order_are_kept():
    changes = BatchSetting(4, 2, max_batch=4).changes()
    edited = edit_config(CONFIG, changes)
    expected = CONFIG.replace("minWorkers: 1", "minWorkers: 2").replace("maxWorkers: 1 ", "maxWorkers: 2 ")
    expected = expected.replace("batchSize: 8", "batchSize: 4").replace("max_batch: 32", "max_batch: 4")
    assert edited == expected
    assert edit_config(edited, changes) == edited


@pytest.mark.parametrize(
    ("text", "changes", "edited"),
    [
        ("batchSize: 8\n", {"handler.max_batch": 4}, "batchSize: 8\nhandler:\n  max_batch: 4\n"),
        ("handler:\n    a: 1\nb: 2\n", {"handler.c": 4}, "handler:\n    a: 1\n    c: 4\nb: 2\n"),
        ("handler:\n  a: 1\n\nb: 2\n", {"handler.c": 3}, "handler:\n  a: 1\n  c: 3\n\nb: 2\n"),
        ("b: 2\n", {"a": 1}, "a: 1\nb: 2\n"),
    ],
)
def test_missing_key_is_added_to_its_section(text, changes, edited):
    assert edit_config(text, changes) == edited


def test_equal_number_keeps_its_notation():
    assert (
        edit_config("handler:\n  max_pixels: 50_000_000\n", {"handler.max_pixels": 50_000_000}).count("_")
        == 3
    )


@pytest.mark.parametrize("name", ["resnet-50", "t5-small", "bart-large-cnn"])
def test_configurations_in_models_can_be_edited(name):
    text = (LAYOUT.models / name / "model-config.yaml").read_text()
    before, after = yaml.safe_load(text), yaml.safe_load(edit_config(text, BatchSetting(3, 2).changes()))
    assert after == {**before, "batchSize": 3, "minWorkers": 2, "maxWorkers": 2}


def test_archive_copy_differs_only_in_its_configuration(tmp_path):
    with zipfile.ZipFile(tmp_path / "old.mar", "w") as old:
        old.writestr("model-config.yaml", CONFIG)
        old.writestr("model/weights", b"\x00\x01")
    copy_archive_with_config(tmp_path / "old.mar", tmp_path / "new.mar", BatchSetting(2).changes())
    with zipfile.ZipFile(tmp_path / "new.mar") as new:
        assert new.read("model/weights") == b"\x00\x01"
        assert yaml.safe_load(new.read("model-config.yaml"))["batchSize"] == 2


def test_configuration_is_written_atomically(tmp_path):
    path = tmp_path / "model-config.yaml"
    path.write_text(CONFIG)
    assert write_config(path, BatchSetting(4).changes())
    assert yaml.safe_load(path.read_text())["batchSize"] == 4
    assert not write_config(path, BatchSetting(4).changes())
    path.write_text("{batchSize: 8, handler: {max_batch: 32}}\n")
    with pytest.raises(TuningError, match="in an editor: batchSize: 4"):
        write_config(path, BatchSetting(4).changes())
    assert path.read_text().startswith("{batchSize: 8")
    assert list(tmp_path.iterdir()) == [path]
