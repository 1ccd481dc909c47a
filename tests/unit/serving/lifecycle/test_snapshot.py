"""What is remembered of a server, and what only passes by."""

import json
from dataclasses import replace

import pytest

from torchserve_models.serving.lifecycle.snapshot import ServedVersion, Snapshot, SnapshotFilter

FIRST = ServedVersion("m", "1", True, "m.mar", 1, 2, 8, 10, 60, 120)
SECOND = replace(FIRST, version="2", default=False)
OTHER = replace(FIRST, name="a")


def test_a_snapshot_is_read_as_it_was_written(tmp_path):
    path = tmp_path / "snapshot.json"
    snapshot = Snapshot.of([SECOND, FIRST, OTHER])
    assert [each.key for each in snapshot.versions] == [("a", "1"), ("m", "1"), ("m", "2")]
    snapshot.write(path)
    assert Snapshot.read(path) == snapshot
    assert [entry.name for entry in tmp_path.iterdir()] == ["snapshot.json"]


@pytest.mark.parametrize(
    "text", ["", "[]", '{"schema": 2, "versions": []}', '{"schema": 1, "versions": [{}]}']
)
def test_another_schema_or_a_damaged_file_is_none(tmp_path, text):
    path = tmp_path / "snapshot.json"
    path.write_text(text)
    assert Snapshot.read(path) is None


def test_a_snapshot_that_cannot_be_written_leaves_nothing(tmp_path):
    (tmp_path / "snapshot.json").mkdir()
    with pytest.raises(OSError, match=r"."):
        Snapshot.of([FIRST]).write(tmp_path / "snapshot.json")
    assert len(list(tmp_path.iterdir())) == 1


def test_the_file_names_its_schema(tmp_path):
    Snapshot().write(tmp_path / "s.json")
    assert json.loads((tmp_path / "s.json").read_text())["schema"] == 1


def test_a_number_of_workers_counts_unless_a_repair_has_set_it():
    watched = SnapshotFilter(Snapshot.of([FIRST]))
    reviving = replace(FIRST, min_workers=0, max_workers=0)
    assert watched.update([reviving], repairing=[FIRST.key]).versions == (FIRST,)
    assert watched.update([FIRST]).versions == (FIRST,)
    scaled = replace(FIRST, min_workers=2)
    assert watched.update([scaled]).versions == (scaled,)


def test_a_default_version_that_was_lost_stays_the_default_until_one_is_set():
    """TorchServe has made the second version the default one by itself."""
    by_itself = replace(SECOND, default=True)
    watched = SnapshotFilter(Snapshot.of([FIRST, SECOND]), [FIRST.key], {"m": FIRST.version})
    for _ in range(2):
        assert watched.update([by_itself]) == Snapshot.of([FIRST, replace(SECOND, default=False)])
        assert watched.lost_defaults == {"m": FIRST.version}
    # Registered again, it is not the default one yet.
    watched.update([replace(FIRST, default=False), by_itself])
    assert (watched.absent, watched.lost_defaults) == (frozenset(), {"m": FIRST.version})
    both = [FIRST, replace(SECOND, default=False)]
    assert watched.update(both) == Snapshot.of(both)
    assert watched.lost_defaults == {}


def test_a_default_version_that_was_set_replaces_the_lost_one():
    by_itself = replace(SECOND, default=True)
    watched = SnapshotFilter(Snapshot.of([FIRST, SECOND]), [FIRST.key], {"m": FIRST.version})
    watched.update([by_itself])
    watched.note_default("other")
    assert watched.lost_defaults == {"m": FIRST.version}
    watched.note_default("m")
    assert watched.update([by_itself]) == Snapshot.of([replace(FIRST, default=False), by_itself])
    assert watched.lost_defaults == {}


def test_versions_come_and_go_and_the_default_changes_at_once():
    watched = SnapshotFilter(Snapshot.of([FIRST]))
    changed = [replace(FIRST, default=False), replace(SECOND, default=True)]
    assert watched.update(changed) == Snapshot.of(changed)
    assert watched.update([changed[1]]) == Snapshot.of([changed[1]])


def test_what_could_not_be_restored_or_described_is_kept():
    watched = SnapshotFilter(Snapshot.of([FIRST, OTHER]), keep=[OTHER.key])
    assert watched.update([FIRST]) == Snapshot.of([FIRST, OTHER])
    assert watched.update([], unknown=["m"]) == Snapshot.of([FIRST, OTHER])
    watched.update([FIRST, OTHER])  # somebody has registered it again
    assert watched.update([FIRST]) == Snapshot.of([FIRST])
