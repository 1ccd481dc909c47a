"""Tests of ports and addresses."""

import os
import socket
from contextlib import ExitStack
from dataclasses import astuple

import pytest

from torchserve_models.serving.errors import ConfigError, PortTaken
from torchserve_models.serving.run_config.ports import Ports, check_free, endpoints_of


def test_reserved_ports_are_different():
    with ExitStack() as reservations:
        assert len(set(astuple(Ports.reserve(reservations)))) == 6


def test_defaults_are_those_of_torchserve():
    assert Ports.from_settings({}) == Ports(8080, 8081, 8082, 7070, 7071)


@pytest.mark.parametrize("address", ["http://127.0.0.1:x", "http://127.0.0.1:70000"])
def test_invalid_port_is_rejected(address):
    with pytest.raises(ConfigError, match="inference_address"):
        Ports.from_settings({"inference_address": address})


@pytest.mark.parametrize("number", ["x", "", "0", "-1", "70000"])
def test_invalid_grpc_port_is_rejected(number):
    with pytest.raises(ConfigError, match=r"grpc.inference"):
        Ports.from_settings({"grpc_inference_port": number})


@pytest.mark.parametrize("offset", [-8080, 60000])
def test_invalid_offset_is_rejected(offset):
    with pytest.raises(ConfigError, match=r"not a port number for inference \(1-65535\)"):
        Ports.from_settings({}).shifted(offset)
    with pytest.raises(ConfigError, match="0 is not a port number for inference"):
        Ports.from_settings({"inference_address": "http://127.0.0.1:0"})


def test_shifted_port_keeps_the_address():
    settings = {"inference_address": "http://0.0.0.0:8080", "management_address": "https://[::1]:8443"}
    changed = Ports(1, 2, 3, 4, 5).settings(settings)
    assert changed["inference_address"] == "http://0.0.0.0:1"
    assert changed["management_address"] == "https://[::1]:2"
    assert changed["grpc_inference_port"] == "4"


@pytest.mark.parametrize(
    ("bound", "reached"), [("0.0.0.0", "127.0.0.1"), ("192.0.2.1", "192.0.2.1"), ("[::]", "[::1]")]
)
def test_endpoints_are_reachable_from_this_machine(bound, reached):
    settings = {"inference_address": f"http://{bound}:80", "grpc_inference_address": bound.strip("[]")}
    addresses = endpoints_of(settings)
    assert addresses.inference == f"http://{reached}:80"
    assert addresses.grpc_inference == f"{reached}:7070"


def test_taken_port_is_named_with_its_holder_and_a_solution():
    with ExitStack() as stack:
        ports = Ports.reserve(stack)
        settings = ports.settings({})
        check_free(settings)
        stack.enter_context(socket.create_server(("127.0.0.1", ports.grpc_management)))
        with pytest.raises(PortTaken) as taken:
            check_free(settings)
    message = str(taken.value)
    assert f"port {ports.grpc_management} (grpc management) is not free: process {os.getpid()}" in message
    assert "--port-offset" in message
