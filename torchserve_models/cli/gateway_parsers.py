"""Parsers of the values of the gateway's options: addresses, sizes, and models of routes."""

from dataclasses import dataclass
from typing import Any, NamedTuple

from torchserve_models.cli.options import parse_port
from torchserve_models.gateway.settings import IMAGE_ROUTES, MAX_CACHE_BYTES

MIB = 2**20
_SIZE_UNITS = {"k": 2**10, "m": MIB, "g": 2**30}


class NamedModel(NamedTuple):
    """A model name, and the route or key that selects it."""

    key: str
    model: str


@dataclass(frozen=True)
class ListenAddress:
    """A host and a port."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_listen_address(value: Any) -> ListenAddress:
    """Return the address of HOST:PORT. Raises ValueError for anything else."""
    host, _, number = str(value).rpartition(":")
    if not host:
        raise ValueError(f"{str(value)!r} is not an address of the form HOST:PORT")
    return ListenAddress(host.removeprefix("[").removesuffix("]"), parse_port(number))


def parse_cache_size(value: Any) -> int:
    """Return the bytes of a size such as 64m. Raises ValueError for anything else, or if it is too large."""
    text = str(value).lower()
    digits, factor = (text[:-1], _SIZE_UNITS[text[-1]]) if text[-1:] in _SIZE_UNITS else (text, 1)
    if not (digits.isascii() and digits.isdigit() and len(digits) < 12):
        raise ValueError(f"{str(value)!r} is not a size such as 64m")
    size = int(digits) * factor
    if size > MAX_CACHE_BYTES:
        raise ValueError(
            f"{str(value)!r} is larger than {MAX_CACHE_BYTES // MIB}m, the limit of the memory budget"
        )
    return size


def parse_named_model(text: str) -> NamedModel:
    """Return the parts of KEY=NAME. Raises ValueError for anything else."""
    key, equals, name = text.partition("=")
    if not (key and equals and name):
        raise ValueError(f"{text!r} is not of the form KEY=NAME")
    return NamedModel(key, name)


def parse_route_model(text: str) -> NamedModel:
    """Return the parts of ROUTE=NAME. Raises ValueError for anything else."""
    route = parse_named_model(text)
    if route.key not in IMAGE_ROUTES:
        raise ValueError(f"{route.key!r} is not a route; use one of {', '.join(IMAGE_ROUTES)}")
    return route


def parse_port_or_zero(value: Any) -> int:
    """Return a port number, or 0 for any free port. Raises ValueError for anything else."""
    return 0 if str(value) == "0" else parse_port(value)
