"""Registering an archive: names, transports, conflicts, and versions that do not load."""

import httpx
import pytest

from tests.unit.client.fake_grpc import over_grpc
from tests.unit.client.fake_torchserve import Version
from tests.unit.client.management_calls import both, changes
from torchserve_models.client import Conflict, Endpoints, InternalError, InvalidRequest
from torchserve_models.client.endpoints import has_grpc_management

pytestmark = pytest.mark.usefixtures("short_waits")


@both
@pytest.mark.parametrize("name", ["org/resnet", "..", "a..b", "", "-x", "_x", "a b", "a" * 129, "é", "a\n"])
def test_invalid_model_name_is_rejected_before_registering(call, connection, fake, protocol, name):
    for operation in (
        lambda c: c.register("texts.mar", model_name=name),
        lambda c: c.replace_model(name, "texts.mar"),
    ):
        with pytest.raises(InvalidRequest):
            call(operation, protocol=protocol, **connection)
    assert fake.received == []


@both
@pytest.mark.parametrize("archive", ["", "..", ".mar", "a b.mar", "é.mar", "folder/-x.tar.gz"])
def test_archive_with_invalid_file_name_is_rejected(call, connection, fake, protocol, archive):
    with pytest.raises(InvalidRequest):
        call(lambda c: c.register(archive), protocol=protocol, **connection)
    assert fake.received == []


def test_invalid_name_error_lists_allowed_characters(call, connection):
    with pytest.raises(
        InvalidRequest, match=r"letters, digits, '\.', '_' or '-'.*Hugging Face Hub.*'resnet-50'"
    ):
        call(lambda c: c.register("resnet-50.mar", model_name="microsoft/resnet-50"), **connection)


@both
def test_archive_in_folder_is_checked_by_file_name(call, connection, fake, protocol):
    fake.registers_as = "texts"
    assert 'Model "texts" Version: 3.0' in call(
        lambda c: c.register("folder/texts.tar.gz"), protocol=protocol, **connection
    )


@both
def test_archive_with_invalid_model_name_is_unregistered(call, connection, fake, protocol):
    fake.registers_as = "org/texts"
    with pytest.raises(InvalidRequest, match="org/texts"):
        call(lambda c: c.register("texts.mar"), protocol=protocol, **connection)
    assert "org/texts" not in fake.versions
    assert "texts" in fake.versions


@both
@pytest.mark.parametrize("version", ["1/2", "..", "2 beta", "1..2"])
def test_archive_with_invalid_version_is_unregistered(call, connection, fake, protocol, version):
    fake.registers_version = version
    for change in (lambda c: c.register("texts.mar"), lambda c: c.replace_model("texts", "texts.mar")):
        with pytest.raises(InvalidRequest, match="not a valid name of a model or version") as caught:
            call(change, protocol=protocol, **connection)
        assert repr(version) in caught.value.message
        assert list(fake.versions["texts"]) == ["1.0", "2.0"]
        assert fake.defaults["texts"] == "1.0"


@both
def test_archive_with_other_file_name_registers_version_of_known_model(call, connection, fake, protocol):
    fake.registers_as = "texts"
    sentence = call(lambda c: c.register("texts-new.mar"), protocol=protocol, **connection)
    assert sentence == 'Model "texts" Version: 3.0 registered with 1 initial workers'


@both
def test_register_without_workers_does_not_wait(call, connection, protocol, fake):
    """`initial_workers` 0, or scaled to a minimum of 0: the model is not supposed to be ready."""
    fake.status, fake.new_workers = "UNLOADING", 0
    assert "registered" in call(lambda c: c.register("texts.mar"), protocol=protocol, **connection)


@both
def test_version_whose_worker_dies_while_loading_is_unregistered(call, connection, protocol, fake):
    fake.dies_at_load = True
    with pytest.raises(InternalError, match=r"texts 3\.0 was registered and removed again"):
        call(lambda c: c.register("texts.mar"), protocol=protocol, **connection)
    assert list(fake.versions["texts"]) == ["1.0", "2.0"]


@both
def test_registering_twice_raises_conflict(call, connection, fake, protocol):
    fake.versions["twice"] = {"1.0": Version("twice.mar")}
    fake.defaults["twice"] = "1.0"
    fake.names.append("twice")
    with pytest.raises(Conflict, match="already registered"):
        call(lambda c: c.register("twice.mar"), protocol=protocol, **connection)


@pytest.mark.parametrize("url", ["twice.mar", "/store/old-name.mar"])
def test_grpc_conflict_gets_its_reason_over_rest(call, fake, url):
    """TorchServe gives no reason over gRPC; the archive may have been registered under another name."""
    fake.versions["twice"] = {"1.0": Version(url)}
    fake.defaults["twice"] = "1.0"
    with over_grpc(fake) as there:
        port = int(there.grpc_management.rpartition(":")[2])
        endpoints = Endpoints.at(management_port=1234, grpc_management_port=port)
        with pytest.raises(Conflict, match=r"Model version 1\.0 is already registered"):
            call(
                lambda c: c.register("twice.mar"),
                endpoints=endpoints,
                transport=httpx.MockTransport(fake.handle_rest),
            )
        fake.versions["twice"] = {"1.0": Version(url)}
        with pytest.raises(Conflict, match=r"twice\.mar is already registered \(registered: twice 1\.0\)"):
            call(lambda c: c.register("twice.mar", model_name="twice"), protocol="grpc", endpoints=there)


def test_grpc_failure_without_reason_is_not_conflict_of_other_models(call, fake):
    with over_grpc(fake) as there, pytest.raises(InternalError, match="gave no reason"):
        call(lambda c: c.register("twice.mar"), protocol="grpc", endpoints=there)


def test_register_uses_grpc_of_the_same_server(call, fake):
    """The default REST and gRPC ports belong to the same server. Registering over REST would block TorchServe."""
    with over_grpc(fake) as there:
        port = int(there.grpc_management.rpartition(":")[2])
        endpoints = Endpoints.at(management_port=1234, grpc_management_port=port)
        call(
            lambda c: c.register("texts.mar"),
            endpoints=endpoints,
            transport=httpx.MockTransport(fake.handle_rest),
        )
    assert changes(fake) == ["RegisterModel"]


def test_register_uses_rest_if_grpc_is_unreachable(call, fake):
    endpoints = Endpoints.at(management_port=1234, grpc_management_port=1)
    call(
        lambda c: c.register("texts.mar"),
        endpoints=endpoints,
        transport=httpx.MockTransport(fake.handle_rest),
    )
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
def test_rest_client_does_not_register_at_another_server(endpoints, expected):
    assert has_grpc_management(endpoints) is expected
