"""All systems, in the order of the table."""

from collections.abc import Sequence

from benchmarks.errors import BenchError
from benchmarks.systems.base import System
from benchmarks.systems.ceiling import Ceiling
from benchmarks.systems.fastapi import FastApi
from benchmarks.systems.flask import Flask
from benchmarks.systems.litserve import LitServe
from benchmarks.systems.mlserver import MlServer
from benchmarks.systems.product import Product, Servers
from benchmarks.systems.torchserve_stock import TorchServeStock

REST, GRPC, INT8 = "product-rest", "product-grpc", "product-int8-rest"
PEERS = tuple(peer.name for peer in (Flask, FastApi, MlServer, LitServe, TorchServeStock))
CEILINGS = {REST: "ceiling", INT8: "ceiling-int8"}
"""Which ceiling each of ours is held against."""


def catalog() -> list[System]:
    """Fresh ones; those of ours share their servers."""
    servers = Servers()
    return [
        Ceiling("ceiling", "no server: the ceiling", int8=False),
        Ceiling("ceiling-int8", "no server, int8", int8=True),
        Product(REST, "**this repository**, REST", "rest", False, servers),
        Product(GRPC, "**this repository**, gRPC", "grpc", False, servers),
        Product(INT8, "**this repository**, int8, REST", "rest", True, servers),
        Flask(),
        FastApi(),
        MlServer(),
        LitServe(),
        TorchServeStock(),
    ]


def chosen(names: Sequence[str]) -> list[System]:
    """Those named, all of them when none is. Raises BenchError."""
    systems = catalog()
    known = [system.name for system in systems]
    for name in names:
        if name not in known:
            raise BenchError(f"--systems: no system {name!r}; known are {', '.join(known)}")
    return [system for system in systems if not names or system.name in names]
