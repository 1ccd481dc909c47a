"""Tests of the file with the recorded state: format, damaged and newer files, and what is recorded."""

import json
from dataclasses import replace

import pytest

from tests.faults.toys import toy
from torchserve_models.serving.lifecycle import recorded_state
from torchserve_models.serving.lifecycle.recorded_state import InvalidState, RecordedState, StateRecorder
from torchserve_models.serving.lifecycle.snapshot import ModelSnapshot, ServedVersion

OLD, NEW = "starter-1a2b3c4d", "starter-5e6f7a8b"
FIRST = ServedVersion("m", OLD, True, "m.mar", 1, 2, 8, 10, 60, 120)
SECOND = replace(FIRST, version=NEW, default=False)
STATE = RecordedState(1, "/store", ("m",), {"m": OLD}, (FIRST, SECOND))


@pytest.fixture
def path(tmp_path):
    return tmp_path / "snapshot.json"


def test_state_is_read_as_written(path):
    STATE.write(path)
    assert RecordedState.read(path) == STATE
    assert json.loads(path.read_text())["schema"] == recorded_state.SCHEMA
    assert [entry.name for entry in path.parent.iterdir()] == ["snapshot.json"]


def test_missing_file_is_no_error(path):
    assert RecordedState.read(path) is None


@pytest.mark.parametrize(
    "content", [b"", b"[]", b'"schema"', b"\xff\x00", b"[" * 100_000, b'{"versions": []}']
)
def test_damaged_or_earlier_file_is_reported(path, content):
    path.write_bytes(content)
    with pytest.raises(InvalidState, match="damaged, or an earlier release"):
        RecordedState.read(path)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"schema": 2}, "schema version is 2, and this release reads version 1"),
        ({"schema": "1"}, "schema version is '1'"),
        ({"versions": [{}]}, r"damaged \(versions.0.name: Field required\)"),
        ({"versions": None}, r"damaged \(versions: "),
        ({"more": 1}, r"damaged \(more: "),
    ],
)
def test_other_content_is_reported_with_its_place(path, change, reason):
    STATE.write(path)
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(InvalidState, match=reason):
        RecordedState.read(path)


def test_truncated_file_is_reported(path):
    STATE.write(path)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(InvalidState, match="damaged"):
        RecordedState.read(path)


def test_unreadable_file_is_reported(path):
    path.mkdir()
    with pytest.raises(InvalidState, match="cannot be read"):
        RecordedState.read(path)


def test_failed_write_leaves_no_file_and_is_repeated(path):
    recorder = StateRecorder(path, path.parent, ["m"], {})
    path.mkdir()
    with pytest.raises(OSError, match=r"."):
        recorder.record(ModelSnapshot.of([FIRST]))
    assert len(list(path.parent.iterdir())) == 1
    path.rmdir()
    recorder.record(ModelSnapshot.of([FIRST]))
    assert RecordedState.read(path).versions == (FIRST,)


def test_unchanged_state_is_not_written_again(path):
    recorder = StateRecorder(path, path.parent, ["m"], {})
    recorder.record(ModelSnapshot.of([FIRST]))
    path.unlink()
    recorder.record(ModelSnapshot.of([FIRST]))
    assert not path.exists()


def test_archive_is_known_once_it_has_been_registered(path):
    """An archive that is packed while the server runs is new at the next start, unless it was registered."""
    store = path.parent
    recorder = StateRecorder(path, store, ["m"], {"removed": "1"})

    def archives(*versions):
        recorder.record(ModelSnapshot.of(versions))
        return dict(RecordedState.read(path).archives)

    toy(store, "m", version=OLD)
    assert archives(FIRST) == {"m": OLD, "removed": "1"}
    toy(store, "m", version=NEW)
    assert archives(replace(FIRST, min_workers=2))["m"] == OLD
    assert archives(FIRST, SECOND)["m"] == NEW
    assert archives(FIRST)["m"] == NEW  # the new version was taken back
    assert archives()["m"] == NEW


def test_archive_that_exists_when_a_model_is_first_registered_is_known(path):
    """A model that was registered from another file is not replaced by NAME.mar."""
    toy(path.parent, "m", version=NEW)
    recorder = StateRecorder(path, path.parent, [], {})
    recorder.record(ModelSnapshot.of([replace(FIRST, archive="m-old.mar")]))
    assert RecordedState.read(path).archives == {"m": NEW}
