"""Management operations: what is sent, what is waited for, and what is refused."""

import httpx
import pytest

from tests.unit.client.fake_grpc import over_grpc
from tests.unit.client.fake_torchserve import Version
from torchserve_models import client
from torchserve_models.client import (
    Conflict,
    Endpoints,
    InternalError,
    InvalidParameter,
    InvalidRequest,
    Timeout,
    drain,
)
from torchserve_models.client.endpoints import has_grpc_management

both = pytest.mark.parametrize("protocol", ["rest", "grpc"])


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch):
    for module, name in (
        (client.changes, "POLL"),
        (drain, "POLL_S"),
        (drain, "STEP_POLL_S"),
        (drain, "MARGIN_S"),
    ):
        monkeypatch.setattr(module, name, 0.001)


def changes(fake):
    """What was sent that changes something."""
    names = ("RegisterModel", "ScaleWorker", "UnregisterModel")
    return [
        seen
        for seen in fake.seen
        if seen in names or (seen[0] in ("PUT", "POST", "DELETE") and not seen[1].startswith("/workers/"))
    ]


def state_of(fake, **computing):
    """The supervisor's state; `computing` has, by worker id without its first letter, seconds or None."""

    def state():
        models = []
        for name, versions in fake.versions.items():
            for version, value in versions.items():
                workers = [
                    {"id": str(9000 + place), "pid": pid, "reports": True, "answers": 5, "computing_s": None}
                    for place, pid in enumerate(value.pids)
                ]
                for worker in workers:
                    worker["computing_s"] = computing.get(f"w{worker['id']}")
                is_idle = not any(worker["computing_s"] for worker in workers)
                models.append(
                    {"name": name, "version": version, "idle": is_idle, "in_flight": 0, "workers": workers}
                )
        return {"models": models}

    return state


@both
@pytest.mark.parametrize("name", ["org/resnet", "..", "a..b", "", "-x", "_x", "a b", "a" * 129, "é", "a\n"])
def test_nothing_is_registered_under_a_name_that_causes_trouble(call, connection, fake, protocol, name):
    for operation in (
        lambda c: c.register("texts.mar", model_name=name),
        lambda c: c.replace_model(name, "texts.mar"),
    ):
        with pytest.raises(InvalidRequest):
            call(operation, protocol=protocol, **connection)
    assert fake.seen == []


ASKING = (
    lambda c, name: c.classify(name, b"x"),
    lambda c, name: c.classify("images", b"x", version=name),
    lambda c, name: c.describe(name),
    lambda c, name: c.describe("texts", name),
    lambda c, name: c.describe_versions(name),
    lambda c, name: c.scale(name, 1),
    lambda c, name: c.set_default(name, "1.0"),
    lambda c, name: c.set_default("texts", name),
)


@pytest.mark.parametrize("ask", ASKING)
@pytest.mark.parametrize("name", ["org/resnet", "..", ".", "", "a\n", "a\0", "\ud800"])
def test_a_name_that_cannot_be_in_a_url_is_not_sent_over_rest(call, connection, fake, ask, name):
    with pytest.raises(InvalidRequest):
        call(lambda c: ask(c, name), **connection)
    assert fake.seen == []


@pytest.mark.parametrize("ask", ASKING)
def test_an_empty_name_is_not_sent_over_grpc_where_it_would_mean_none(call, connection, fake, ask):
    with pytest.raises(InvalidRequest):
        call(lambda c: ask(c, ""), protocol="grpc", **connection)
    assert fake.seen == []


@both
@pytest.mark.parametrize("name", ["_x", "-x", "1.0+cu", "a b", "é", "a..b", "a%2fb", "a?b=c#d", "a" * 129])
def test_a_model_that_another_client_registered_under_any_name_can_be_used(
    call, connection, fake, protocol, name
):
    fake.register("texts.mar", name)
    assert call(lambda c: c.describe(name), protocol=protocol, **connection).name == name
    assert call(lambda c: c.scale(name, 2), protocol=protocol, **connection)
    call(lambda c: c.set_default(name, "1.0"), protocol=protocol, **connection)
    assert call(lambda c: c.ready(name), protocol=protocol, **connection)
    call(lambda c: c.unregister(name, force=True), protocol=protocol, **connection)
    assert name not in fake.versions


@both
@pytest.mark.parametrize("archive", ["", "..", ".mar", "a b.mar", "é.mar", "folder/-x.tar.gz"])
def test_an_archive_that_would_give_such_a_name_is_not_sent(call, connection, fake, protocol, archive):
    with pytest.raises(InvalidRequest):
        call(lambda c: c.register(archive), protocol=protocol, **connection)
    assert fake.seen == []


def test_the_message_says_what_is_allowed(call, connection):
    with pytest.raises(
        InvalidRequest, match=r"letters, digits, '\.', '_' or '-'.*Hugging Face Hub.*'resnet-50'"
    ):
        call(lambda c: c.register("resnet-50.mar", model_name="microsoft/resnet-50"), **connection)


@both
def test_an_archive_in_a_folder_is_checked_by_its_file(call, connection, fake, protocol):
    fake.registers_as = "texts"
    assert 'Model "texts" Version: 3.0' in call(
        lambda c: c.register("folder/texts.tar.gz"), protocol=protocol, **connection
    )


@both
def test_an_archive_that_names_its_model_badly_is_removed_again(call, connection, fake, protocol):
    fake.registers_as = "org/texts"
    with pytest.raises(InvalidRequest, match="org/texts"):
        call(lambda c: c.register("texts.mar"), protocol=protocol, **connection)
    assert "org/texts" not in fake.versions
    assert "texts" in fake.versions


@both
@pytest.mark.parametrize("version", ["1/2", "..", "2 beta", "1..2"])
def test_an_archive_with_a_bad_version_is_removed_again(call, connection, fake, protocol, version):
    fake.registers_version = version
    for change in (lambda c: c.register("texts.mar"), lambda c: c.replace_model("texts", "texts.mar")):
        with pytest.raises(InvalidRequest, match="not a valid name of a model or version") as caught:
            call(change, protocol=protocol, **connection)
        assert repr(version) in caught.value.message
        assert list(fake.versions["texts"]) == ["1.0", "2.0"]
        assert fake.defaults["texts"] == "1.0"


@both
@pytest.mark.parametrize("name", ["org/texts", "../texts"])
def test_a_bad_name_can_be_removed(call, connection, fake, protocol, name):
    fake.register("texts.mar", name)
    call(lambda c: c.unregister(name), protocol=protocol, **connection)
    assert name not in fake.versions
    assert call(lambda c: c.ready(), protocol=protocol, **connection)


@both
def test_a_bad_name_of_another_client_does_not_hide_the_others(call, connection, fake, protocol):
    fake.register("texts.mar", "org/texts")
    assert call(lambda c: c.ready(), protocol=protocol, **connection)
    assert 'Model "new" Version: 1.0' in call(
        lambda c: c.register("new.mar"), protocol=protocol, **connection
    )


@both
def test_a_file_named_otherwise_registers_a_version_of_a_known_model(call, connection, fake, protocol):
    fake.registers_as = "texts"
    sentence = call(lambda c: c.register("texts-new.mar"), protocol=protocol, **connection)
    assert sentence == 'Model "texts" Version: 3.0 registered with 1 initial workers'


@both
@pytest.mark.parametrize(
    ("operation", "looks"),
    [
        (lambda c: c.scale("texts", 1), True),
        (lambda c: c.register("texts.mar"), True),
        (lambda c: c.scale("texts", 1, synchronous=False), False),
        (lambda c: c.register("texts.mar", synchronous=False), False),
    ],
    ids=["scale", "register", "scale without waiting", "register without waiting"],
)
def test_a_change_waits_until_the_workers_are_ready(call, connection, protocol, fake, operation, looks):
    fake.loading = 9
    call(operation, protocol=protocol, **connection)
    assert (fake.loading < 0) is looks


@both
def test_a_change_waits_no_longer_than_the_timeout(call, connection, protocol, fake):
    fake.status = "UNLOADING"
    for operation in (
        lambda c: c.scale("texts", 1, timeout=1.5),
        lambda c: c.register("texts.mar", timeout=1.5),
    ):
        with pytest.raises(
            Timeout, match=r"the change was made, but 0 of 1 workers are ready: no answer within 1\.5 s"
        ):
            call(operation, protocol=protocol, **connection)


@both
def test_workers_that_nobody_asked_for_are_not_waited_for(call, connection, protocol, fake):
    """`initial_workers` 0, or scaled to a minimum of 0: the model is never ready, and that is what was wanted."""
    fake.status, fake.new_workers = "UNLOADING", 0
    assert "registered" in call(lambda c: c.register("texts.mar"), protocol=protocol, **connection)


@both
def test_a_version_whose_worker_ends_while_it_loads_is_removed_again(call, connection, protocol, fake):
    fake.dies_at_load = True
    with pytest.raises(InternalError, match=r"texts 3\.0 was registered and removed again"):
        call(lambda c: c.register("texts.mar"), protocol=protocol, **connection)
    assert list(fake.versions["texts"]) == ["1.0", "2.0"]


@both
def test_register_twice_is_a_conflict(call, connection, fake, protocol):
    """Case 15."""
    fake.versions["twice"] = {"1.0": Version("twice.mar")}
    fake.defaults["twice"] = "1.0"
    fake.names.append("twice")
    with pytest.raises(Conflict, match="already registered"):
        call(lambda c: c.register("twice.mar"), protocol=protocol, **connection)


@pytest.mark.parametrize("url", ["twice.mar", "/store/old-name.mar"])
def test_a_conflict_over_grpc_whose_reason_rest_says(call, fake, url):
    """Case 15: TorchServe says nothing of it over gRPC; the archive may have been registered under another name."""
    fake.versions["twice"] = {"1.0": Version(url)}
    fake.defaults["twice"] = "1.0"
    with over_grpc(fake) as there:
        port = int(there.grpc_management.rpartition(":")[2])
        endpoints = Endpoints.at(management_port=1234, grpc_management_port=port)
        with pytest.raises(Conflict, match=r"Model version 1\.0 is already registered"):
            call(
                lambda c: c.register("twice.mar"),
                endpoints=endpoints,
                transport=httpx.MockTransport(fake.rest),
            )
        fake.versions["twice"] = {"1.0": Version(url)}
        with pytest.raises(Conflict, match=r"twice\.mar is already registered \(registered: twice 1\.0\)"):
            call(lambda c: c.register("twice.mar", model_name="twice"), protocol="grpc", endpoints=there)


def test_a_failure_over_grpc_without_a_reason_is_no_conflict_of_other_models(call, fake):
    with over_grpc(fake) as there, pytest.raises(InternalError, match="gave no reason"):
        call(lambda c: c.register("twice.mar"), protocol="grpc", endpoints=there)


def test_register_goes_over_grpc_where_it_is_the_same_server(call, fake):
    """REST on the default port and gRPC on the default port are one server; TorchServe's REST would block."""
    with over_grpc(fake) as there:
        port = int(there.grpc_management.rpartition(":")[2])
        endpoints = Endpoints.at(management_port=1234, grpc_management_port=port)
        call(lambda c: c.register("texts.mar"), endpoints=endpoints, transport=httpx.MockTransport(fake.rest))
    assert changes(fake) == ["RegisterModel"]


def test_register_goes_over_rest_where_grpc_cannot_be_reached(call, fake):
    endpoints = Endpoints.at(management_port=1234, grpc_management_port=1)
    call(lambda c: c.register("texts.mar"), endpoints=endpoints, transport=httpx.MockTransport(fake.rest))
    assert changes(fake) == [("POST", "/models?url=texts.mar&synchronous=false")]


@pytest.mark.parametrize(
    ("endpoints", "expected"),
    [
        (Endpoints(), True),
        (Endpoints.at("10.0.0.7"), True),
        (Endpoints.at(management_port=8181), False),
        (Endpoints.at(grpc_management_port=7171), False),
        (Endpoints.at(management_port=8181, grpc_management_port=7171), True),
        (Endpoints(management="https://server.invalid:8443"), False),
        (Endpoints(management="http://server.invalid:8081"), False),
        (Endpoints(management="https://[::1]:8443", grpc_management="https://[::1]:7443"), True),
    ],
)
def test_a_rest_client_registers_at_no_other_server(endpoints, expected):
    assert has_grpc_management(endpoints) is expected


@both
def test_scaling_down_goes_one_step_at_a_time(call, connection, fake, protocol):
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
@pytest.mark.parametrize("descriptions", [1, 3])
def test_a_worker_is_held_before_it_is_ended(call, connection, fake, protocol, descriptions):
    """Describe calls go to any worker; this one has it when the supervisor says so."""
    fake.versions["texts"]["1.0"] = Version("texts.mar", 2, 2, [1, 2])
    fake.takes_holds = True
    held = []

    def state():
        assert len(fake.versions["texts"]["1.0"].pids) == 2
        value = state_of(fake)()
        workers = next(model["workers"] for model in value["models"] if model["name"] == "texts")
        workers[1]["held"] = bool(fake.asked_to_hold) and fake.customized >= descriptions
        held.append(workers[1]["held"])
        return value

    fake.state = state
    call(lambda c: c.scale("texts", 1), protocol=protocol, **connection)
    assert fake.asked_to_hold == [2]
    assert held[-1]
    assert not any(held[:-1])
    assert fake.versions["texts"]["1.0"].pids == [1]


def test_a_worker_that_cannot_be_held_is_ended_after_the_drain_timeout(call, connection, fake):
    fake.versions["texts"]["1.0"] = Version("texts.mar", 2, 2, [1, 2])
    fake.takes_holds = True
    fake.state = state_of(fake)
    call(lambda c: c.scale("texts", 1, drain_timeout=0.05), **connection)
    assert fake.versions["texts"]["1.0"].pids == [1]


@both
def test_a_worker_is_ended_while_it_is_idle(call, connection, fake, protocol):
    """The last of the list is the one that TorchServe ends."""
    fake.versions["texts"]["1.0"] = Version("texts.mar", 2, 2, [1, 2])
    looks = []

    def state():
        looks.append(None)
        assert len(fake.versions["texts"]["1.0"].pids) == 2
        return state_of(fake, w9000=1.0, **({"w9001": 0.5} if len(looks) < 5 else {}))()

    fake.state = state
    call(lambda c: c.scale("texts", 1), protocol=protocol, **connection)
    assert len(looks) == 5
    assert fake.versions["texts"]["1.0"].pids == [1]


def test_a_worker_that_is_never_idle_is_ended_after_the_drain_timeout(call, connection, fake):
    fake.versions["texts"]["1.0"] = Version("texts.mar", 2, 2, [1, 2])
    fake.state = state_of(fake, w9000=1.0, w9001=1.0)
    call(lambda c: c.scale("texts", 1, drain_timeout=0.05), **connection)
    assert fake.versions["texts"]["1.0"].pids == [1]
    assert fake.seen.count(("GET", "/state")) > 3


@both
def test_a_scale_that_torchserve_fails_in_the_middle_of_is_repeated(call, connection, fake, protocol):
    fake.versions["texts"]["1.0"] = Version("texts.mar", 2, 2, [1, 2])
    fake.failing_scales = 1
    call(lambda c: c.scale("texts", 1), protocol=protocol, **connection)
    assert len(changes(fake)) == 2
    fake.failing_scales = 99
    with pytest.raises(InternalError, match="ConcurrentModificationException"):
        call(lambda c: c.scale("texts", 2), protocol=protocol, **connection)


def test_scale_to_nothing_goes_over_rest_alone(call, connection, fake):
    fake.queued = 3
    assert call(lambda c: c.scale("texts", 0), protocol="rest", **connection) == "texts: 0 workers"
    assert fake.versions["texts"]["1.0"].pids == []
    fake.seen.clear()
    with pytest.raises(InvalidParameter, match="cannot scale to 0"):
        call(lambda c: c.scale("texts", 0), protocol="grpc", **connection)
    assert fake.seen == []


@pytest.mark.parametrize(
    "operation",
    [
        lambda c: c.scale("texts", 0, drain_timeout=0.05),
        lambda c: c.unregister("texts", "2.0", drain_timeout=0.05),
    ],
)
def test_what_has_requests_is_not_removed(call, connection, fake, operation):
    fake.queued = 10**6
    with pytest.raises(
        Timeout, match=r"not drained after 0\.05 s: .* requests are queued\. Nothing was removed"
    ):
        call(operation, **connection)
    fake.queued = 0
    fake.state = state_of(fake, w9000=3.0)
    with pytest.raises(Timeout, match="its workers have requests"):
        call(operation, **connection)
    assert changes(fake) == []


@both
def test_unregister_waits_for_the_queue_and_for_the_workers(call, connection, fake, protocol):
    fake.queued = 5
    looks = []

    def state():
        looks.append(fake.queued)
        return state_of(fake, **({"w9000": 0.5} if len(looks) < 5 else {}))()

    fake.state = state
    call(lambda c: c.unregister("texts", "2.0"), protocol=protocol, **connection)
    assert (
        len(looks) == 7
    )  # the last three found it idle, with a question to the worker after the first of them
    assert max(looks) <= 0  # none before the queue was empty
    assert list(fake.versions["texts"]) == ["1.0"]
    assert len(changes(fake)) == 1


def test_a_request_between_queue_and_worker_is_seen(call, connection, fake):
    """The batch delay: the queue is empty, no worker computes, and a request is on its way."""
    answers = iter([5, 6, 7, 7, 7, 7])

    def state():
        value = state_of(fake)()
        count = next(answers)
        for model in value["models"]:
            for worker in model["workers"]:
                worker["answers"] = count
        return value

    fake.state = state
    call(lambda c: c.unregister("texts", "2.0"), **connection)
    assert next(answers, None) is None


@pytest.mark.parametrize("reports", ["no supervisor", "another server", False])
def test_without_a_supervisor_a_question_passes_through_the_queue(call, connection, fake, reports):
    def state():
        value = state_of(fake)()
        for model in value["models"]:
            for worker in model["workers"]:
                worker.update({"pid": 1} if reports == "another server" else {"reports": reports})
        return value

    fake.state = None if reports == "no supervisor" else state
    call(lambda c: c.unregister("texts", "2.0"), **connection)
    assert ("GET", "/models/texts/2.0?customized=true") in fake.seen
    assert list(fake.versions["texts"]) == ["1.0"]


def test_without_a_supervisor_several_workers_get_the_response_timeout(call, connection, fake):
    fake.versions["texts"]["2.0"] = Version("texts.mar", 2, 2, [1, 2])
    with pytest.raises(Timeout):  # 60 s are more than this operation has
        call(lambda c: c.unregister("texts", "2.0", timeout=0.5), **connection)
    assert changes(fake) == []


@both
def test_now_does_not_wait(call, connection, fake, protocol):
    fake.queued = 10**6
    call(lambda c: c.unregister("texts", "2.0", force=True), protocol=protocol, **connection)
    assert list(fake.versions["texts"]) == ["1.0"]
    assert not [seen for seen in fake.seen if seen[0] == "GET" and seen[1] != "/recorded"]


@both
def test_the_default_of_several_versions_is_not_drained_in_vain(call, connection, fake, protocol):
    fake.queued = 10**6
    with pytest.raises(Conflict, match="set-default"):
        call(lambda c: c.unregister("texts"), protocol=protocol, **connection)


@both
def test_a_version_that_cannot_answer_does_not_become_the_default(call, connection, fake, protocol):
    fake.versions["texts"]["2.0"] = Version("texts.mar", 0, 0, [])
    with pytest.raises(Conflict, match=r"texts 2\.0 has no worker that is ready"):
        call(lambda c: c.set_default("texts", "2.0"), protocol=protocol, **connection)
    assert fake.defaults["texts"] == "1.0"
    call(lambda c: c.set_default("texts", "2.0", force=True), protocol=protocol, **connection)
    assert fake.defaults["texts"] == "2.0"


@both
def test_a_version_becomes_the_default_when_it_has_answered(call, connection, fake, protocol):
    """So that the model's readiness does not turn false for the moment before its first answer."""
    fake.versions["texts"]["2.0"] = Version("texts.mar", 1, 1, [9])
    fake.unready = 3
    defaults = []
    fake.on_readiness = lambda: defaults.append(fake.defaults["texts"])
    call(lambda c: c.set_default("texts", "2.0"), protocol=protocol, **connection)
    assert defaults == ["1.0"] * 4
    assert fake.defaults["texts"] == "2.0"


@both
def test_replace(call, connection, fake, protocol):
    fake.versions["texts"] = {"1.0": Version("texts.mar", 2, 2, [1, 2])}
    fake.state = state_of(fake)
    fake.loading, fake.queued = 5, 8
    sentence = call(lambda c: c.replace_model("texts", "texts.mar"), protocol=protocol, **connection)
    assert sentence == "texts: version 2.0 replaces 1.0"
    assert list(fake.versions["texts"]) == ["2.0"]
    assert fake.defaults["texts"] == "2.0"
    assert len(fake.versions["texts"]["2.0"].pids) == 2  # as many as the old one


@both
def test_replace_by_what_does_not_load_changes_nothing(call, connection, fake, protocol):
    fake.versions["texts"] = {"1.0": Version("texts.mar")}
    fake.dies_at_load = True
    with pytest.raises(InternalError, match="removed again"):
        call(lambda c: c.replace_model("texts", "texts.mar"), protocol=protocol, **connection)
    assert list(fake.versions["texts"]) == ["1.0"]
    assert fake.defaults["texts"] == "1.0"


def test_replace_says_what_was_reached(call, connection, fake):
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
def test_numbers_are_checked(call, connection, fake, operation):
    with pytest.raises(InvalidParameter):
        call(operation, **connection)
    assert fake.seen == []
