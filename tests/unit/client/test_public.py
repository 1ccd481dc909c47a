"""The public API: equal sync and async clients, imports, and validation of settings."""

import inspect
import subprocess
import sys
from pathlib import Path

import pytest

from torchserve_models import client
from torchserve_models.client import AsyncClient, Client, Endpoints
from torchserve_models.client.endpoints import is_loopback
from torchserve_models.client.settings import MAX_MESSAGE_BYTES, Settings

ROOT = Path(__file__).resolve().parents[3]


def methods(cls):
    return {
        name: member
        for name, member in inspect.getmembers(cls, inspect.isfunction)
        if not name.startswith("_")
    }


def test_sync_and_async_clients_have_the_same_methods():
    sync_members, async_members = methods(Client), methods(AsyncClient)
    assert sync_members.keys() == async_members.keys()
    assert inspect.isgeneratorfunction(sync_members.pop("map"))
    assert inspect.isasyncgenfunction(async_members.pop("map"))
    for name, method in sync_members.items():
        assert inspect.signature(method) == inspect.signature(async_members[name]), name
        assert inspect.iscoroutinefunction(async_members[name]), name
        assert method.__doc__, name


def test_sync_and_async_clients_take_the_same_settings():
    sync_members, async_members = (
        inspect.signature(cls.__init__).parameters for cls in (Client, AsyncClient)
    )
    assert list(sync_members) == list(async_members)
    assert all(sync_members[name].default == async_members[name].default for name in sync_members)


def test_exported_names_exist():
    assert all(hasattr(client, name) for name in client.__all__)


def test_importing_client_needs_neither_torch_nor_torchserve():
    code = (
        "import sys, torchserve_models.cli.predict, torchserve_models.client._stubs.inference_pb2\n"
        "print([name for name in ('torch', 'transformers', 'numpy', 'PIL', 'ts', 'handlers') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    "changes", [{"protocol": "http"}, {"timeout": 0}, {"retries": -1}, {"connect_timeout": -1}]
)
def test_invalid_setting_is_rejected(changes):
    with pytest.raises(ValueError, match=r"protocol|above 0"):
        Client(**changes)
    with pytest.raises(ValueError, match=r"protocol|above 0"):
        Settings(**changes)


def test_endpoints_at_host_have_default_ports():
    assert Endpoints.at() == Endpoints()
    there = Endpoints.at("::1", inference_port=1, grpc_port=2)
    assert there.inference == "http://[::1]:1"
    assert there.grpc_inference == "[::1]:2"


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("http://127.0.0.1:8080", True),
        ("http://localhost:8080", True),
        ("[::1]:7070", True),
        ("127.0.0.2:7070", True),
        ("https://example.org", False),
        ("10.0.0.1:7070", False),
    ],
)
def test_loopback_address_is_recognized(address, expected):
    assert is_loopback(address) is expected


def test_message_limit_equals_that_of_config_properties():
    lines = (ROOT / "config.properties").read_text().splitlines()
    limits = dict(line.split("=", 1) for line in lines if line.startswith("max_re"))
    assert limits == {name: str(MAX_MESSAGE_BYTES) for name in ("max_request_size", "max_response_size")}
