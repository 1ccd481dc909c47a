"""API keys in front of a real TorchServe: every protocol and the management API, and no key in any log."""

from dataclasses import replace

import pytest

from tests.server.fronted import IMAGE, LABEL, in_front_of, needs_nginx
from torchserve_models.client import AccessDenied, Client, Endpoints
from torchserve_models.gateway.keys.api_key import ApiKey
from torchserve_models.gateway.keys.key_file import KeyFile
from torchserve_models.gateway.settings import GatewaySettings

pytestmark = needs_nginx
SCOPES = {
    "all": ("inference",),
    "images": ("inference:resnet-50",),
    "operator": ("management", "metrics"),
}


@pytest.fixture
def texts(tmp_path):
    """Return the texts of the keys in the file that the gateway uses, by name."""
    texts = {}
    for name, scopes in SCOPES.items():
        key, texts[name] = ApiKey.create(name, scopes)
        KeyFile(tmp_path / "keys.json").add(key)
    return texts


def test_keys_are_checked_for_every_protocol_and_are_in_no_log(server, tmp_path, texts, capfd):
    settings = GatewaySettings(key_file=tmp_path / "keys.json")
    options = {"open_management": True, "access_log": "/dev/stdout requests"}
    with in_front_of(server.endpoints, settings, **options) as front:
        endpoints = replace(Endpoints.gateway(front.url), grpc_inference=front.config.grpc)

        def connect(name, protocol="rest"):
            return Client(endpoints=endpoints, protocol=protocol, api_key=texts.get(name), retries=0)

        for protocol in ("rest", "grpc", "open-inference", "open-inference-grpc"):
            with connect("all", protocol) as client:
                assert client.classify("resnet-50", IMAGE, top_k=1)[0].label == LABEL
            for name, code in (("none", 401), ("operator", 403)):
                with connect(name, protocol) as client, pytest.raises(AccessDenied) as caught:
                    client.classify("resnet-50", IMAGE)
                assert caught.value.code == code, (name, protocol)
        with connect("images") as client:
            assert client.classify("resnet-50", IMAGE, top_k=1)[0].label == LABEL
            with pytest.raises(AccessDenied):
                client.summarize("t5-small", "A text.")
            for use in (client.list_models, client.metrics):
                with pytest.raises(AccessDenied):
                    use()
            assert client.ready("resnet-50")
        with connect("operator") as client:
            assert "resnet-50" in [model.name for model in client.list_models()]
            assert client.describe("resnet-50").ready
            assert client.metrics().total("handler_requests_total", ModelName="resnet-50") > 0
    captured = capfd.readouterr()
    logs = {"edge": captured.out + captured.err}
    for path in server.run_dir.rglob("*"):
        if path.is_file():
            logs[str(path)] = path.read_bytes().decode(errors="replace")
    assert "key=" in logs["edge"]
    assert any(name.endswith("server.log") for name in logs)
    for name, log in logs.items():
        for text in texts.values():
            assert text.split("_", 2)[2] not in log, name
