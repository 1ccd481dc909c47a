"""Tests of what a new supervisor loads: recorded state, command line, and archives packed since."""

from dataclasses import replace

import pytest

from tests.faults.toys import toy
from torchserve_models.serving.lifecycle import start_plan
from torchserve_models.serving.lifecycle.recorded_state import RecordedState
from torchserve_models.serving.lifecycle.snapshot import ModelSnapshot, ServedVersion
from torchserve_models.serving.lifecycle.start_plan import plan_start, read_recorded_state
from torchserve_models.serving.lifecycle.version_links import VersionLinks
from torchserve_models.serving.run_config.run_dir import RunDir

OLD, NEW, NEWEST = "starter-1a2b3c4d", "starter-5e6f7a8b", "starter-9c0d1e2f"
A = ServedVersion("a", OLD, True, "a.mar", 2, 3, 8, 10, 60, 120)
B = replace(A, name="b", archive="b.mar")


@pytest.fixture
def plan(tmp_path):
    """Return a function that plans a start in a store with archives of `a` and `b` in version OLD."""
    for name in ("a", "b"):
        toy(tmp_path, name, version=OLD)

    def make(
        versions, requested=("a", "b"), *, last=("a", "b"), archives=None, named=False, recovering=False
    ):
        known = {"a": OLD, "b": OLD} if archives is None else archives
        recorded = RecordedState(1, str(tmp_path), last, known, ModelSnapshot.of(versions).versions)
        return plan_start(recorded, requested, tmp_path, named=named, recovering=recovering)

    make.store = tmp_path
    return make


def test_first_start_loads_the_requested_models(tmp_path):
    for recorded in (None, RecordedState(1, str(tmp_path), ("a",), {"a": OLD}, ())):
        planned = plan_start(recorded, ["a", "b"], tmp_path, named=True, recovering=True)
        assert (planned.snapshot, planned.new) == (ModelSnapshot(), ("a", "b"))


def test_unchanged_request_restores_the_state(plan):
    late = replace(A, name="late", archive="late.mar")
    for recovering in (False, True):
        planned = plan([A, B, late], recovering=recovering)
        assert planned.snapshot == ModelSnapshot.of([A, B, late])
        assert (planned.new, planned.messages) == ((), ())
        assert planned.archives == {"a": OLD, "b": OLD}


def test_removed_model_stays_removed_unless_it_is_named(plan):
    assert plan([A]).new == ()
    assert plan([A], named=True).new == ("b",)
    assert plan([A], named=True, recovering=True).new == ()
    toy(plan.store, "b", version=NEW)
    assert plan([A]).new == ("b",)  # packed again
    assert plan([A], recovering=True).new == ()


def test_model_that_was_not_requested_before_is_added(plan):
    toy(plan.store, "c")
    for recovering in (False, True):  # the first start with the new request may have been killed
        planned = plan([A, B], ["a", "b", "c"], recovering=recovering)
        assert planned.new == ("c",)
        assert planned.snapshot == ModelSnapshot.of([A, B])


def test_model_that_is_no_longer_requested_is_not_restored(plan):
    late = replace(A, name="late", archive="late.mar")
    planned = plan([A, B, late], ["a"], named=True)
    assert planned.snapshot == ModelSnapshot.of([A, late])
    assert planned.archives == {"a": OLD}
    assert planned.messages == ("b: not restored, because it is no longer requested",)
    again = plan([A, late], ["a", "b"], last=("a",), archives=planned.archives)
    assert again.new == ("b",)


def test_new_archive_replaces_the_default_version_only(plan):
    toy(plan.store, "a", version=NEWEST)
    other = replace(A, version=NEW, default=False)
    planned = plan([A, other, B])
    assert planned.snapshot == ModelSnapshot.of([other, B])
    assert planned.new == ("a",)
    assert planned.messages == (
        f"a: version {NEWEST} was packed since the last start and replaces version {OLD}",
    )


def test_new_archive_of_a_restored_version_makes_it_the_default(plan):
    """The user has packed an earlier version again."""
    newer = replace(A, version=NEW)
    planned = plan([newer, replace(A, default=False), B], archives={"a": NEW, "b": OLD})
    assert planned.snapshot == ModelSnapshot.of([A, B])
    assert planned.new == ()


def test_archive_of_a_version_that_was_taken_back_is_not_new(plan):
    toy(plan.store, "a", version=NEW)
    planned = plan([A, B], archives={"a": NEW, "b": OLD})
    assert (planned.snapshot, planned.new) == (ModelSnapshot.of([A, B]), ())


def test_new_archive_has_no_effect_after_a_crash(plan):
    toy(plan.store, "a", version=NEW)
    planned = plan([A, B], recovering=True)
    assert (planned.snapshot, planned.new) == (ModelSnapshot.of([A, B]), ())
    assert planned.archives["a"] == OLD  # the next start on request still finds it new


def test_missing_archive_replaces_nothing(plan):
    (plan.store / "a.mar").unlink()
    assert plan([A, B]).snapshot == ModelSnapshot.of([A, B])


def test_state_without_a_requested_model_is_not_served_empty(plan):
    assert plan([A], ["b"], last=("a", "b")).new == ("b",)


@pytest.fixture
def run(tmp_path):
    run = RunDir(tmp_path / "run")
    run.make()
    return run


def test_invalid_state_is_kept_under_another_name(run, tmp_path):
    run.snapshot.write_text('{"schema": 7}')
    messages = []
    assert read_recorded_state(run, tmp_path, messages.append) is None
    assert not run.snapshot.exists()
    assert (run.path / "snapshot.invalid.json").read_text() == '{"schema": 7}'
    (message,) = messages
    assert "schema version is 7" in message
    assert "snapshot.invalid.json" in message


def test_state_of_another_store_is_discarded_with_its_links(run, tmp_path):
    old_store, new_store = tmp_path / "old", tmp_path / "new"
    for store in (old_store, new_store):
        store.mkdir()
    toy(old_store, "a", version=OLD)
    links = VersionLinks(old_store, run, print)
    links.sync([A])
    toy(old_store, "a", version=NEW)
    links.close()
    RecordedState(1, str(old_store), ("a",), {}, (A,)).write(run.snapshot)
    assert (old_store / ".versions").exists()
    messages = []
    assert read_recorded_state(run, new_store, messages.append) is None
    assert not run.snapshot.exists()
    assert not (old_store / ".versions").exists()
    assert str(old_store) in messages[0]


def test_state_is_read_and_discarded(run, tmp_path):
    recorded = RecordedState(1, str(tmp_path), ("a",), {}, (A,))
    recorded.write(run.snapshot)
    assert read_recorded_state(run, tmp_path, pytest.fail) == recorded
    start_plan.discard_recorded_state(run)
    start_plan.discard_recorded_state(run)
    assert read_recorded_state(run, tmp_path, pytest.fail) is None
