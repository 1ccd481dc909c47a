"""nginx's configuration: the template of deploy/nginx, filled in; and nginx itself as a process."""

import re
import shutil
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from string import Template
from urllib.parse import urlsplit

from client import Endpoints

TEMPLATE = Path(__file__).resolve().parent.parent / "deploy" / "nginx" / "nginx.conf.template"
_VARIABLE = re.compile(r"\$\{([A-Z_]+)\}")
_PLAIN = re.compile(r"[\w.:\[\]+-]+")


class NginxError(Exception):
    """nginx is missing, or does not start; `str()` says why."""


@dataclass(frozen=True)
class Tls:
    """PEM files; REST and gRPC speak TLS alone with them."""

    certificate: Path
    key: Path


@dataclass(frozen=True)
class Front:
    """What nginx does. Addresses are `host:port`.

    `others` are further TorchServes, (REST, gRPC), that share the predictions with the one of `endpoints`.
    `rate`: requests a second of one client, None for any number; `burst` more of them are taken at once.
    `client_timeout`: seconds for a header, and between two pieces of a body.
    """

    http: str = "127.0.0.1:8000"
    grpc: str = "127.0.0.1:7000"
    gateway: str = "127.0.0.1:8090"
    endpoints: Endpoints = field(default_factory=Endpoints)
    others: tuple[tuple[str, str], ...] = ()
    tls: Tls | None = None
    open_management: bool = False
    rate: int | None = None
    burst: int = 50
    client_timeout: int = 20
    image_model: str = "resnet-50"
    workers: str = "auto"
    access_log: str = "off"
    key: str = ""
    """Proves to the gateway that a request to its inner route /refusals is nginx's own; empty for no check."""


def render(front: Front, work: Path, template: Path = TEMPLATE) -> str:
    """nginx.conf; `work` is nginx's own folder. Raises NginxError for a value that cannot stand in it."""
    values = variables(front, work)
    text = template.read_text(encoding="utf-8")
    missing = sorted(set(_VARIABLE.findall(text)) - values.keys())
    if missing:
        raise NginxError(f"{template} asks for unknown variables: {', '.join(missing)}")
    return Template(text).safe_substitute(values)


def variables(front: Front, work: Path) -> dict[str, str]:
    """The template's variables, which nginx's own image takes from the environment."""
    at = front.endpoints
    upstreams = [(_host(at.inference), at.grpc_inference), *front.others]
    tls, secure = "", ""
    if front.tls:
        files = _quoted(front.tls.certificate), _quoted(front.tls.key)
        tls, secure = "ssl_certificate {}; ssl_certificate_key {};".format(*files), " ssl http2"
    return {
        "HTTP_LISTEN": _plain(front.http) + secure,
        "GRPC_LISTEN": _plain(front.grpc) + (secure or " http2"),
        "TLS": tls,
        "GATEWAY": _plain(front.gateway),
        "INFERENCE_SERVERS": _servers(rest for rest, _ in upstreams),
        "GRPC_SERVERS": _servers(grpc for _, grpc in upstreams),
        "MANAGEMENT_SERVER": _plain(_host(at.management)),
        "METRICS_SERVER": _plain(_host(at.metrics)),
        "MANAGEMENT": "allow" if front.open_management else "deny",
        "RATE_KEY": "$binary_remote_addr" if front.rate else '""',
        "RATE": f"{front.rate or 1}r/s",
        "BURST": str(front.burst),
        "CLIENT_TIMEOUT": f"{front.client_timeout}s",
        "IMAGE_MODEL": _plain(front.image_model),
        "WORKER_PROCESSES": front.workers,
        "ACCESS_LOG": front.access_log,
        "WORK": _path(work),
        "GATEWAY_KEY": front.key,
    }


def program() -> str:
    """Raises NginxError where nginx is not installed."""
    found = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
    if found is None:
        raise NginxError("nginx is not installed (on Debian: apt-get install nginx-light)")
    return found


def command(front: Front, work: Path) -> list[str]:
    """Writes the configuration into `work`, has nginx check it, and returns what runs it in the foreground."""
    config = work / "nginx.conf"
    config.write_text(render(front, work), encoding="utf-8")
    start = [program(), "-p", str(work), "-c", str(config), "-e", "stderr"]
    checked = subprocess.run([*start, "-t", "-q"], capture_output=True, text=True, timeout=60)
    if checked.returncode:
        raise NginxError(f"nginx refuses its configuration: {checked.stderr.strip()}")
    return [*start, "-g", "daemon off;"]


def _servers(addresses: Iterable[str]) -> str:
    """One alone is never taken out for a while after an error: that would only refuse what it could answer."""
    found = [_plain(address) for address in addresses]
    kept = " max_fails=0" if len(found) == 1 else ""
    return " ".join(f"server {address}{kept};" for address in found)


def _host(url: str) -> str:
    return urlsplit(url).netloc


def _plain(text: str) -> str:
    if not _PLAIN.fullmatch(text):
        raise NginxError(f"{text!r} is no address or name")
    return text


def _path(path: Path) -> str:
    text = str(path.resolve())
    if set(text) & set(" ;{}\"'$\\\n"):
        raise NginxError(f"nginx cannot use the path {text!r}")
    return text


def _quoted(path: Path) -> str:
    return f'"{_path(path)}"'
