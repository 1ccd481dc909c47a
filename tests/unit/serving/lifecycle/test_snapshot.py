"""Tests of the snapshot of served models."""

from dataclasses import replace

from torchserve_models.serving.lifecycle.snapshot import ModelSnapshot, ServedVersion, SnapshotFilter

FIRST = ServedVersion("m", "1", True, "m.mar", 1, 2, 8, 10, 60, 120)
SECOND = replace(FIRST, version="2", default=False)
OTHER = replace(FIRST, name="a")


def test_default_versions_come_first():
    snapshot = ModelSnapshot.of([SECOND, FIRST, OTHER])
    assert [version.key for version in snapshot.versions] == [("a", "1"), ("m", "1"), ("m", "2")]
    assert snapshot.get(("m", "2")) == SECOND
    assert snapshot.get(("m", "3")) is None


def test_worker_counts_set_by_a_repair_are_ignored():
    watched = SnapshotFilter(ModelSnapshot.of([FIRST]))
    reviving = replace(FIRST, min_workers=0, max_workers=0)
    assert watched.update([reviving], repairing=[FIRST.key]).versions == (FIRST,)
    assert watched.update([FIRST]).versions == (FIRST,)
    scaled = replace(FIRST, min_workers=2)
    assert watched.update([scaled]).versions == (scaled,)


def test_lost_default_version_stays_the_default_until_one_is_set():
    """TorchServe has automatically made the second version the default version."""
    by_itself = replace(SECOND, default=True)
    watched = SnapshotFilter(ModelSnapshot.of([FIRST, SECOND]), [FIRST.key], {"m": FIRST.version})
    for _ in range(2):
        assert watched.update([by_itself]) == ModelSnapshot.of([FIRST, replace(SECOND, default=False)])
        assert watched.lost_defaults == {"m": FIRST.version}
    # Registered again, it is not the default one yet.
    watched.update([replace(FIRST, default=False), by_itself])
    assert (watched.absent, watched.lost_defaults) == (frozenset(), {"m": FIRST.version})
    both = [FIRST, replace(SECOND, default=False)]
    assert watched.update(both) == ModelSnapshot.of(both)
    assert watched.lost_defaults == {}


def test_default_version_set_by_a_client_replaces_the_lost_one():
    by_itself = replace(SECOND, default=True)
    watched = SnapshotFilter(ModelSnapshot.of([FIRST, SECOND]), [FIRST.key], {"m": FIRST.version})
    watched.update([by_itself])
    watched.note_default("other")
    assert watched.lost_defaults == {"m": FIRST.version}
    watched.note_default("m")
    assert watched.update([by_itself]) == ModelSnapshot.of([replace(FIRST, default=False), by_itself])
    assert watched.lost_defaults == {}


def test_snapshot_follows_versions_and_default():
    watched = SnapshotFilter(ModelSnapshot.of([FIRST]))
    changed = [replace(FIRST, default=False), replace(SECOND, default=True)]
    assert watched.update(changed) == ModelSnapshot.of(changed)
    assert watched.update([changed[1]]) == ModelSnapshot.of([changed[1]])


def test_versions_not_restored_or_described_are_kept():
    watched = SnapshotFilter(ModelSnapshot.of([FIRST, OTHER]), keep=[OTHER.key])
    assert watched.update([FIRST]) == ModelSnapshot.of([FIRST, OTHER])
    assert watched.update([], unknown=["m"]) == ModelSnapshot.of([FIRST, OTHER])
    watched.update([FIRST, OTHER])  # a client has registered it again
    assert watched.update([FIRST]) == ModelSnapshot.of([FIRST])
