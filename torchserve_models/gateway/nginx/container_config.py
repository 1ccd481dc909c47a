"""nginx.conf for an nginx in a separate container, as in deploy/compose.yaml.

The supervisor of TorchServe reports its memory budget, from which nginx's limits follow.
"""

import time
from pathlib import Path

from torchserve_models.files import write_atomic
from torchserve_models.gateway.nginx.body_budget import supervised_body_bytes
from torchserve_models.gateway.nginx.config import NginxConfig, NginxError
from torchserve_models.gateway.nginx.template import render_config

_RETRY_S = 0.5
_RESOLV_CONF = Path("/etc/resolv.conf")


def wait_for_body_bytes(health: str, wait_s: float) -> int:
    """Return the bytes of request bodies that TorchServe may hold.

    Raises:
        NginxError: The supervisor did not respond within `wait_s` seconds.
    """
    deadline = time.monotonic() + wait_s
    while (body_bytes := supervised_body_bytes(health)) is None:
        if time.monotonic() >= deadline:
            raise NginxError(
                f"the supervisor at {health} did not report its memory budget within {wait_s:g} s"
            )
        time.sleep(_RETRY_S)
    return body_bytes


def find_name_server(path: Path = _RESOLV_CONF) -> str:
    """Return the first DNS server of this container, which shares a network with nginx.

    Other servers may not know the names of that network.

    Raises:
        NginxError: The file contains no name server.
    """
    for line in path.read_text(encoding="utf-8").splitlines():
        match line.split():
            case ["nameserver", address, *_]:
                return f"[{address}]" if ":" in address else address
    raise NginxError(f"{path} contains no name server; set --resolver")


def write_config(config: NginxConfig, work: Path, output: Path) -> None:
    """Write nginx.conf atomically and readable by all users, because nginx runs as another user."""
    write_atomic(output, render_config(config, work), mode=0o644)
