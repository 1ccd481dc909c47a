"""The public face: sync and async agree, importing needs little, what is missing is said."""

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


def test_sync_and_async_have_the_same_methods_and_signatures():
    ours, theirs = methods(Client), methods(AsyncClient)
    assert ours.keys() == theirs.keys()
    assert inspect.isgeneratorfunction(ours.pop("map"))
    assert inspect.isasyncgenfunction(theirs.pop("map"))
    for name, method in ours.items():
        assert inspect.signature(method) == inspect.signature(theirs[name]), name
        assert inspect.iscoroutinefunction(theirs[name]), name
        assert method.__doc__, name


def test_they_are_made_alike():
    ours, theirs = (inspect.signature(cls.__init__).parameters for cls in (Client, AsyncClient))
    assert list(ours) == list(theirs)
    assert all(ours[name].default == theirs[name].default for name in ours)


def test_everything_public_exists():
    assert all(hasattr(client, name) for name in client.__all__)


def test_importing_needs_neither_torch_nor_torchserve():
    code = (
        "import sys, torchserve_models.client.cli, torchserve_models.client._stubs.inference_pb2\n"
        "print([name for name in ('torch', 'transformers', 'numpy', 'PIL', 'ts', 'handlers') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    "changes", [{"protocol": "http"}, {"timeout": 0}, {"retries": -1}, {"connect_timeout": -1}]
)
def test_settings_are_checked(changes):
    with pytest.raises(ValueError, match=r"protocol|above 0"):
        Client(**changes)
    with pytest.raises(ValueError, match=r"protocol|above 0"):
        Settings(**changes)


def test_endpoints_of_a_host():
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
def test_loopback_is_never_behind_a_proxy(address, expected):
    assert is_loopback(address) is expected


def test_the_message_limit_is_the_servers():
    lines = (ROOT / "config.properties").read_text().splitlines()
    limits = dict(line.split("=", 1) for line in lines if line.startswith("max_re"))
    assert limits == {name: str(MAX_MESSAGE_BYTES) for name in ("max_request_size", "max_response_size")}
