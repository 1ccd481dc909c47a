"""Management operations: the calls they send, the conditions they wait for, and their errors."""

import pytest

from tests.unit.client.fake_torchserve import Version
from tests.unit.client.management_calls import both, changes, state_of
from torchserve_models.client import Conflict, InternalError, InvalidParameter, InvalidRequest, Timeout

pytestmark = pytest.mark.usefixtures("short_waits")


OPERATIONS_ON_NAMES = (
    lambda c, name: c.classify(name, b"x"),
    lambda c, name: c.classify("images", b"x", version=name),
    lambda c, name: c.describe(name),
    lambda c, name: c.describe("texts", name),
    lambda c, name: c.describe_versions(name),
    lambda c, name: c.scale(name, 1),
    lambda c, name: c.set_default(name, "1.0"),
    lambda c, name: c.set_default("texts", name),
)


@pytest.mark.parametrize("operation", OPERATIONS_ON_NAMES)
@pytest.mark.parametrize("name", ["org/resnet", "..", ".", "", "a\n", "a\0", "\ud800"])
def test_name_that_cannot_be_in_url_is_rejected_over_rest(call, connection, fake, operation, name):
    with pytest.raises(InvalidRequest):
        call(lambda c: operation(c, name), **connection)
    assert fake.received == []


@pytest.mark.parametrize("operation", OPERATIONS_ON_NAMES)
def test_empty_name_is_rejected_over_grpc(call, connection, fake, operation):
    with pytest.raises(InvalidRequest):
        call(lambda c: operation(c, ""), protocol="grpc", **connection)
    assert fake.received == []


@both
@pytest.mark.parametrize("name", ["_x", "-x", "1.0+cu", "a b", "é", "a..b", "a%2fb", "a?b=c#d", "a" * 129])
def test_model_registered_with_unusual_name_can_be_used(call, connection, fake, protocol, name):
    fake.register("texts.mar", name)
    assert call(lambda c: c.describe(name), protocol=protocol, **connection).name == name
    assert call(lambda c: c.scale(name, 2), protocol=protocol, **connection)
    call(lambda c: c.set_default(name, "1.0"), protocol=protocol, **connection)
    assert call(lambda c: c.ready(name), protocol=protocol, **connection)
    call(lambda c: c.unregister(name, force=True), protocol=protocol, **connection)
    assert name not in fake.versions


@both
@pytest.mark.parametrize("name", ["org/texts", "../texts"])
def test_model_with_invalid_name_can_be_unregistered(call, connection, fake, protocol, name):
    fake.register("texts.mar", name)
    call(lambda c: c.unregister(name), protocol=protocol, **connection)
    assert name not in fake.versions
    assert call(lambda c: c.ready(), protocol=protocol, **connection)


@both
def test_model_with_invalid_name_does_not_hide_others(call, connection, fake, protocol):
    fake.register("texts.mar", "org/texts")
    assert call(lambda c: c.ready(), protocol=protocol, **connection)
    assert 'Model "new" Version: 1.0' in call(
        lambda c: c.register("new.mar"), protocol=protocol, **connection
    )


@both
@pytest.mark.parametrize(
    ("operation", "waits"),
    [
        (lambda c: c.scale("texts", 1), True),
        (lambda c: c.register("texts.mar"), True),
        (lambda c: c.scale("texts", 1, synchronous=False), False),
        (lambda c: c.register("texts.mar", synchronous=False), False),
    ],
    ids=["scale", "register", "scale without waiting", "register without waiting"],
)
def test_change_waits_until_workers_are_ready(call, connection, protocol, fake, operation, waits):
    fake.loading = 9
    call(operation, protocol=protocol, **connection)
    assert (fake.loading < 0) is waits


@both
def test_change_raises_timeout_if_workers_stay_unready(call, connection, protocol, fake):
    fake.status = "UNLOADING"
    for operation in (
        lambda c: c.scale("texts", 1, timeout=0.3),
        lambda c: c.register("texts.mar", timeout=0.3),
    ):
        with pytest.raises(
            Timeout, match=r"the change was made, but 0 of 1 workers can answer: no answer within 0\.3 s"
        ):
            call(operation, protocol=protocol, **connection)


@both
def test_scaling_down_ends_one_worker_at_a_time(call, connection, fake, protocol):
    fake.versions["texts"]["1.0"] = Version("texts.mar", 4, 4, [1, 2, 3, 4])
    fake.state = state_of(fake)
    assert call(lambda c: c.scale("texts", 1), protocol=protocol, **connection) == "texts: 1 workers"
    steps = changes(fake)
    assert len(steps) == 3
    if protocol == "rest":
        assert [path.partition("?")[2].partition("&sync")[0] for _, path in steps] == [
            "min_worker=1&max_worker=3",
            "min_worker=1&max_worker=2",
            "min_worker=1&max_worker=1",
        ]
    assert fake.versions["texts"]["1.0"].pids == [1]


@both
def test_failed_scale_call_is_repeated(call, connection, fake, protocol):
    fake.versions["texts"]["1.0"] = Version("texts.mar", 2, 2, [1, 2])
    fake.failing_scales = 1
    call(lambda c: c.scale("texts", 1), protocol=protocol, **connection)
    assert len(changes(fake)) == 2
    fake.failing_scales = 99
    with pytest.raises(InternalError, match="ConcurrentModificationException"):
        call(lambda c: c.scale("texts", 2), protocol=protocol, **connection)


def test_scale_to_zero_works_over_rest_only(call, connection, fake):
    fake.queued = 3
    assert call(lambda c: c.scale("texts", 0), protocol="rest", **connection) == "texts: 0 workers"
    assert fake.versions["texts"]["1.0"].pids == []
    fake.received.clear()
    with pytest.raises(InvalidParameter, match="cannot scale to 0"):
        call(lambda c: c.scale("texts", 0), protocol="grpc", **connection)
    assert fake.received == []


@both
def test_force_unregisters_without_waiting(call, connection, fake, protocol):
    fake.queued = 10**6
    call(lambda c: c.unregister("texts", "2.0", force=True), protocol=protocol, **connection)
    assert list(fake.versions["texts"]) == ["1.0"]
    assert not [call for call in fake.received if call[0] == "GET" and call[1] != "/recorded"]


@both
def test_default_version_beside_others_is_not_drained(call, connection, fake, protocol):
    fake.queued = 10**6
    with pytest.raises(Conflict, match="set-default"):
        call(lambda c: c.unregister("texts"), protocol=protocol, **connection)


@both
def test_version_that_cannot_answer_does_not_become_default(call, connection, fake, protocol):
    fake.versions["texts"]["2.0"] = Version("texts.mar", 0, 0, [])
    with pytest.raises(Conflict, match=r"texts 2\.0 has no worker that is ready"):
        call(lambda c: c.set_default("texts", "2.0"), protocol=protocol, **connection)
    assert fake.defaults["texts"] == "1.0"
    call(lambda c: c.set_default("texts", "2.0", force=True), protocol=protocol, **connection)
    assert fake.defaults["texts"] == "2.0"


@both
def test_version_becomes_default_after_it_has_answered(call, connection, fake, protocol):
    """A new default version would otherwise be unready until its first answer."""
    fake.versions["texts"]["2.0"] = Version("texts.mar", 1, 1, [9])
    fake.unready = 3
    defaults = []
    fake.on_readiness = lambda: defaults.append(fake.defaults["texts"])
    call(lambda c: c.set_default("texts", "2.0"), protocol=protocol, **connection)
    assert defaults == ["1.0"] * 4
    assert fake.defaults["texts"] == "2.0"


@both
def test_replace_makes_new_version_the_default(call, connection, fake, protocol):
    fake.versions["texts"] = {"1.0": Version("texts.mar", 2, 2, [1, 2])}
    fake.state = state_of(fake)
    fake.loading, fake.queued = 5, 8
    sentence = call(lambda c: c.replace_model("texts", "texts.mar"), protocol=protocol, **connection)
    assert sentence == "texts: version 2.0 replaces 1.0"
    assert list(fake.versions["texts"]) == ["2.0"]
    assert fake.defaults["texts"] == "2.0"
    assert len(fake.versions["texts"]["2.0"].pids) == 2  # as many as the old one


@both
def test_replace_with_version_that_does_not_load_changes_nothing(call, connection, fake, protocol):
    fake.versions["texts"] = {"1.0": Version("texts.mar")}
    fake.dies_at_load = True
    with pytest.raises(InternalError, match="removed again"):
        call(lambda c: c.replace_model("texts", "texts.mar"), protocol=protocol, **connection)
    assert list(fake.versions["texts"]) == ["1.0"]
    assert fake.defaults["texts"] == "1.0"


def test_replace_timeout_names_completed_steps(call, connection, fake):
    fake.versions["texts"] = {"1.0": Version("texts.mar")}
    fake.queued = 10**6
    with pytest.raises(
        Timeout, match=r"texts 2\.0 is the default now, but the old version is still registered: .*not"
    ):
        call(lambda c: c.replace_model("texts", "texts.mar", drain_timeout=0.05), **connection)
    assert fake.defaults["texts"] == "2.0"
    assert list(fake.versions["texts"]) == ["1.0", "2.0"]


@pytest.mark.parametrize(
    "operation",
    [
        lambda c: c.unregister("texts", drain_timeout=-1),
        lambda c: c.scale("texts", 1, drain_timeout=-1),
        lambda c: c.replace_model("texts", "texts.mar", workers=0),
        lambda c: c.register("texts.mar", timeout=0),
        lambda c: c.classify("images", b"x", timeout=-1),
    ],
)
def test_invalid_timeout_is_rejected(call, connection, fake, operation):
    with pytest.raises(InvalidParameter):
        call(operation, **connection)
    assert fake.received == []
