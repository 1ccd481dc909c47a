"""nginx's configuration: the template of deploy/nginx, filled in; and nginx itself as a process."""

import ipaddress
import re
import resource
import shutil
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from string import Template
from urllib.parse import urlsplit

from torchserve_models.client import Endpoints
from torchserve_models.gateway.settings import IMAGE_ROUTES
from torchserve_models.paths import ROOT

TEMPLATE = ROOT / "deploy" / "nginx" / "nginx.conf.template"
_VARIABLE = re.compile(r"\$\{([A-Z_]+)\}")
_ROUTE_VARIABLES = ("PREDICT_MODEL", "IMAGE_CLASSES_MODEL", "PIXEL_MODEL")
_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://(?:[a-z0-9.-]+|\[[0-9a-f:.]+\])(?::\d{1,5})?")
_PLAIN = re.compile(r"[\w.:\[\]+-]+")
# The sizes of bodies (the map $body_size of the template), and the share in percent that the bodies of each size have
# in the bytes that one TorchServe may hold, over REST and over gRPC.
_SIZES = {"": 100_000, "MEDIUM_": 1_000_000, "LARGE_": 4_200_000, "HUGE_": 16 * 2**20}
_REST_SHARES = (12, 20, 12, 20)
_GRPC_SHARES = (6, 10, 8, 12)
# One TorchServe is never ejected: that would refuse what it could answer. Of several, one that fails this often is
# left out for a second; a second only, because a full queue counts as a failure too.
_ALONE = "max_fails=0"
_SHARED = "max_fails=20 fail_timeout=1s"


class NginxError(Exception):
    """nginx is missing, or does not start; `str()` says why."""


@dataclass(frozen=True)
class Tls:
    """PEM files; REST and gRPC speak TLS alone with them."""

    certificate: Path
    key: Path


@dataclass(frozen=True)
class Limits:
    """How much of each resource clients may use; docs/gateway.md derives nginx's memory from these numbers.

    `connections`: open connections, to clients and to TorchServe together.
    `client_requests`, `client_uploads`: requests in progress, and uploads of 1 MB or more, of one client address.
    `all_requests`, `all_uploads`: the same for all clients together.
    `body_bytes`: bytes of all bodies that one TorchServe holds
        (serving/run_config/memory_budget.py).
    `resends_per_second`, `resend_burst`: the retry budget for requests whose worker died.
    """

    connections: int = 14_000
    client_requests: int = 256
    client_uploads: int = 16
    all_requests: int = 2048
    all_uploads: int = 256
    body_bytes: int = 512 * 2**20
    resends_per_second: int = 10
    resend_burst: int = 20


@dataclass(frozen=True)
class NginxConfig:
    """What nginx does. Addresses are `host:port`.

    `gateway_key`: a secret shared with the gateway, which proves that an inner request comes from nginx.
    `internal` is nginx's listener for itself, for Prometheus and for health checks; with the port 0 a free one, which
    gateway.front chooses.
    `others` are further TorchServes, (REST, gRPC), that share the predictions with the one of `endpoints`.
    `rate`: requests a second of one client, None for any number; `burst` more of them are taken at once.
    `client_timeout`: seconds for a header, and between two pieces of a body.
    `upstream_timeout`: seconds until TorchServe has to answer.
    `image_model` and `route_models`: as in gateway.settings.Settings.
    `text_models`: models whose bodies may have 4 MiB instead of 16.
    `server_names`: hosts under which management may be asked for, beside this machine's loopback names.
    `real_ip_from`: networks of balancers, which say who the client is: in X-Forwarded-For, or, with
    `proxy_protocol`, by the PROXY protocol.
    `resolver`: the DNS server that nginx asks for the addresses of TorchServe and the gateway every 2 s, which takes
    nginx 1.27.3 or later; without one, names are looked up when nginx starts.
    `cors_origins`: sites whose pages may ask from a browser, such as `https://app.example`; `*` is every site.
    `streaming` opens StreamPredictions over gRPC, which kills a worker whose handler does not stream.
    """

    http: str = "127.0.0.1:8000"
    grpc: str = "127.0.0.1:7000"
    gateway: str = "127.0.0.1:8090"
    gateway_key: str = ""
    internal: str = "127.0.0.1:0"
    endpoints: Endpoints = field(default_factory=Endpoints)
    others: tuple[tuple[str, str], ...] = ()
    tls: Tls | None = None
    open_management: bool = False
    server_names: tuple[str, ...] = ()
    rate: int | None = None
    burst: int = 50
    limits: Limits = field(default_factory=Limits)
    client_timeout: int = 10
    upstream_timeout: int = 330
    image_model: str = "resnet-50"
    route_models: Mapping[str, str] = field(default_factory=dict)
    text_models: tuple[str, ...] = ("t5-small", "bart-large-cnn")
    real_ip_from: tuple[str, ...] = ()
    proxy_protocol: bool = False
    resolver: str = ""
    cors_origins: tuple[str, ...] = ()
    streaming: bool = False
    workers: int = 2
    access_log: str = "off"


def render(front: NginxConfig, work: Path, template: Path = TEMPLATE) -> str:
    """nginx.conf; `work` is nginx's own folder. Raises NginxError for a value that cannot stand in it."""
    values = variables(front, work)
    text = template.read_text(encoding="utf-8")
    missing = sorted(set(_VARIABLE.findall(text)) - values.keys())
    if missing:
        raise NginxError(f"{template} asks for unknown variables: {', '.join(missing)}")
    return Template(text).safe_substitute(values)


def variables(front: NginxConfig, work: Path) -> dict[str, str]:
    """The template's variables, which nginx's own image takes from the environment."""
    at = front.endpoints
    tls, secure = "", ""
    if front.tls:
        files = _quoted(front.tls.certificate), _quoted(front.tls.key)
        tls, secure = "ssl_certificate {}; ssl_certificate_key {};".format(*files), " ssl http2"
    internal = _plain(re.sub(":0$", ":8091", front.internal))
    proxied = " proxy_protocol" if front.proxy_protocol else ""
    return {
        "HTTP_LISTEN": _plain(front.http) + secure + proxied,
        "GRPC_LISTEN": _plain(front.grpc) + (secure or " http2") + proxied,
        "INTERNAL_LISTEN": internal,
        "INTERNAL": internal,
        "TLS": tls,
        "REAL_IP": _real_ip(front),
        "RESOLVER": _resolver(front),
        "GATEWAY": _plain(front.gateway) + _resolve(front),
        "GATEWAY_KEY": front.gateway_key and _plain(front.gateway_key),
        "MANAGEMENT_SERVER": _plain(_host(at.management)) + _resolve(front),
        "METRICS_SERVER": _plain(_host(at.metrics)) + _resolve(front),
        "HEALTH_EVENTS": _plain(_host(at.health)),
        "MANAGEMENT": "allow" if front.open_management else "deny",
        "MANAGEMENT_HOSTS": _hosts(front),
        "CORS_ORIGINS": " ".join(f'"{_origin(origin)}" 1;' for origin in dict.fromkeys(front.cors_origins)),
        "CORS_VARY": "Origin" if front.cors_origins else "",
        "RATE_KEY": "$client_network" if front.rate else '""',
        "RATE": f"{front.rate or 1}r/s",
        "BURST": str(front.burst),
        "CLIENT_TIMEOUT": f"{front.client_timeout}s",
        "UPSTREAM_TIMEOUT": f"{front.upstream_timeout}s",
        **{
            name: _plain(front.route_models.get(route, front.image_model))
            for name, route in zip(_ROUTE_VARIABLES, IMAGE_ROUTES, strict=True)
        },
        "TEXT_MODELS": "|".join(map(_pattern, front.text_models)) or "(?!)",
        "GRPC_STREAMS": "StreamPredictions2?" if front.streaming else "",
        "WORKER_PROCESSES": str(front.workers),
        # `access_log off` would also switch off the events of clients that left.
        "ACCESS_LOG": "/dev/null requests if=0" if front.access_log == "off" else front.access_log,
        "DEADLINES": _deadlines(),
        "WORK": _path(work),
        **_upstreams(front),
        **_limits(front.limits, front.workers),
    }


def program() -> str:
    """Raises NginxError where nginx is not installed."""
    found = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
    if found is None:
        raise NginxError("nginx is not installed (on Debian: apt-get install nginx-light)")
    return found


def command(front: NginxConfig, work: Path) -> list[str]:
    """Writes the configuration into `work`, has nginx check it, and returns what runs it in the foreground."""
    config = work / "nginx.conf"
    config.write_text(render(front, work), encoding="utf-8")
    start = [program(), "-p", str(work), "-c", str(config), "-e", "stderr"]
    checked = subprocess.run([*start, "-t", "-q"], capture_output=True, text=True, timeout=60)
    if checked.returncode:
        raise NginxError(f"nginx refuses its configuration: {checked.stderr.strip()}")
    return [*start, "-g", "daemon off;"]


def _upstreams(front: NginxConfig) -> dict[str, str]:
    """The servers of each upstream group: REST and gRPC, in four sizes of bodies."""
    at = front.endpoints
    rest = [_host(at.inference), *(rest for rest, _ in front.others)]
    grpc = [at.grpc_inference, *(grpc for _, grpc in front.others)]
    groups: dict[str, str] = {}
    for name, addresses, shares in (
        ("INFERENCE_SERVERS", rest, _REST_SHARES),
        ("GRPC_SERVERS", grpc, _GRPC_SHARES),
    ):
        for (prefix, size), share in zip(_SIZES.items(), shares, strict=True):
            bodies = max(1, front.limits.body_bytes * share // (100 * size))
            groups[prefix + name] = _servers(addresses, _resolve(front), bodies)
    return groups


def _deadlines() -> str:
    """nginx takes no variable as a time-out: copies of three locations, one for each value of `$within`."""
    template = TEMPLATE.read_text(encoding="utf-8")

    def block(name: str) -> str:
        begin = template.index(f"        location @{name} {{")  # the first one, REST's
        return template[begin : template.index("\n        }\n", begin)].strip() + "\n        }"

    copies = []
    for seconds in re.findall(r" _(\d+)s;$", template, re.MULTILINE):
        for name in ("torchserve", "lost", "resend"):
            head, body = block(name).split("\n", 1)
            head = head.replace(f"@{name}", f"@{name}_{seconds}s")
            body = body.replace(
                "next_upstream_timeout 10s;", f"next_upstream_timeout {min(int(seconds), 10)}s;"
            )
            copies.append(f"{head}\n            proxy_read_timeout {seconds}s;\n{body}")
    return "\n        ".join(copies)


def _limits(limits: Limits, workers: int) -> dict[str, str]:
    """Connections are divided evenly among the worker processes, as `reuseport` divides them."""
    connections = -(-limits.connections // workers)
    open_files = 3 * connections + 512
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]  # root in a container may not raise it either
    if hard != resource.RLIM_INFINITY:
        open_files = min(open_files, hard)
    return {
        "CONNECTIONS": str(connections),
        "OPEN_FILES": str(open_files),
        "CLIENT_REQUESTS": str(limits.client_requests),
        "CLIENT_UPLOADS": str(limits.client_uploads),
        "ALL_REQUESTS": str(limits.all_requests),
        "ALL_UPLOADS": str(limits.all_uploads),
        "RESEND_RATE": f"{limits.resends_per_second}r/s",
        "RESEND_BURST": str(limits.resend_burst),
    }


def _servers(addresses: Iterable[str], resolve: str, bodies: int) -> str:
    servers = [_plain(address) + resolve for address in addresses]
    ejection = _ALONE if len(servers) == 1 else _SHARED
    return " ".join(f"server {address} {ejection} max_conns={bodies};" for address in servers)


def _resolve(front: NginxConfig) -> str:
    return " resolve" if front.resolver else ""


def _resolver(front: NginxConfig) -> str:
    """nginx's directive. IPv4 only: TorchServe listens on 0.0.0.0."""
    return f"resolver {_plain(front.resolver)} valid=2s ipv6=off;" if front.resolver else ""


def _real_ip(front: NginxConfig) -> str:
    """nginx's directives for the client's address behind balancers; without any, the sender's counts."""
    if not front.real_ip_from:
        if front.proxy_protocol:
            raise NginxError(
                "--proxy-protocol needs --real-ip-from: the networks whose PROXY headers are trusted"
            )
        return ""
    networks = []
    for text in front.real_ip_from:
        try:
            networks.append(ipaddress.ip_network(text, strict=False))
        except ValueError:
            raise NginxError(f"{text!r} is not a network such as 10.0.0.0/8") from None
    header = "proxy_protocol" if front.proxy_protocol else "X-Forwarded-For"
    trusted = " ".join(f"set_real_ip_from {network};" for network in networks)
    return f"{trusted} real_ip_header {header}; real_ip_recursive on;"


def _hosts(front: NginxConfig) -> str:
    """Entries of the map of Host headers that management accepts; a host's port does not matter."""
    listening = _plain(front.http).rpartition(":")[0]
    names = dict.fromkeys(["localhost", "127.0.0.1", "[::1]", listening, *front.server_names])
    return " ".join(f'"{_plain(name).lower()}" 1;' for name in names)


def _host(url: str) -> str:
    return urlsplit(url).netloc


def _plain(text: str) -> str:
    if not _PLAIN.fullmatch(text):
        raise NginxError(f"{text!r} is no address or name")
    return text


def _origin(text: str) -> str:
    """An entry of the map of Origin headers."""
    if text == "*":
        return r"~^\S+$"
    if not _ORIGIN.fullmatch(text):
        raise NginxError(
            f"--cors-origin: {text!r} is neither * nor an origin such as https://app.example "
            f"(scheme and host in lower case, a port where it is not the scheme's own, no path)"
        )
    return text


def _pattern(name: str) -> str:
    """A regular expression for a model's name."""
    return re.sub(r"([.+\[\]])", r"\\\1", _plain(name))


def _path(path: Path) -> str:
    text = str(path.resolve())
    if set(text) & set(" ;{}\"'$\\\n"):
        raise NginxError(f"nginx cannot use the path {text!r}")
    return text


def _quoted(path: Path) -> str:
    return f'"{_path(path)}"'
