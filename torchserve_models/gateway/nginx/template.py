"""Render nginx.conf from the template in deploy/nginx."""

import ipaddress
import re
import resource
from collections.abc import Iterable
from pathlib import Path
from string import Template
from urllib.parse import urlsplit

from torchserve_models.gateway.nginx.config import Limits, NginxConfig, NginxError
from torchserve_models.gateway.settings import IMAGE_ROUTES
from torchserve_models.paths import ROOT

TEMPLATE = ROOT / "deploy" / "nginx" / "nginx.conf.template"
_VARIABLE = re.compile(r"\$\{([A-Z_]+)\}")
_ROUTE_VARIABLES = ("PREDICT_MODEL", "IMAGE_CLASSES_MODEL", "PIXEL_MODEL")
_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://(?:[a-z0-9.-]+|\[[0-9a-f:.]+\])(?::\d{1,5})?")
_PLAIN = re.compile(r"[\w.:\[\]+-]+")
# The size classes of bodies (the map $body_size in the template), and the percentage of TorchServe's body bytes that
# each class may use. The remaining part is for the gateway's requests, whose bodies have a budget of their own.
_MAX_BYTES_BY_CLASS = {"": 100_000, "MEDIUM_": 1_000_000, "LARGE_": 4_200_000, "HUGE_": 16 * 2**20}
_PERCENT = (12, 20, 12, 20)
# With several TorchServe instances, one that fails this often gets no requests for a second, but not for longer,
# because a full queue is also a failure. A single instance always gets the requests.
_SINGLE_SERVER = "max_fails=0"
_ONE_OF_SEVERAL = "max_fails=20 fail_timeout=1s"


def render_config(config: NginxConfig, work: Path, template: Path = TEMPLATE) -> str:
    """Return nginx.conf. Raises NginxError for a value that could change the meaning of other directives.

    Args:
        config: The settings.
        work: nginx's working directory.
        template: The template file.
    """
    values = template_variables(config, work)
    text = template.read_text(encoding="utf-8")
    missing = sorted(set(_VARIABLE.findall(text)) - values.keys())
    if missing:
        raise NginxError(f"{template} contains unknown variables: {', '.join(missing)}")
    return Template(text).safe_substitute(values)


def template_variables(config: NginxConfig, work: Path) -> dict[str, str]:
    """Return the values of the template's variables."""
    endpoints = config.endpoints
    tls, secure = "", ""
    if config.tls:
        files = _quoted(config.tls.certificate), _quoted(config.tls.key)
        tls, secure = "ssl_certificate {}; ssl_certificate_key {};".format(*files), " ssl http2"
    internal = _plain(re.sub(":0$", ":8091", config.internal))
    proxy_protocol = " proxy_protocol" if config.proxy_protocol else ""
    gateway_key = config.gateway_key and _plain(config.gateway_key)
    keys = _keys(config)
    return {
        "HTTP_LISTEN": _plain(config.http) + secure + proxy_protocol,
        "GRPC_LISTEN": _plain(config.grpc) + (secure or " http2") + proxy_protocol,
        "INTERNAL_LISTEN": internal,
        "INTERNAL": internal,
        **_cache(config),
        "TLS": tls,
        "REAL_IP": _real_ip(config),
        "RESOLVER": _resolver(config),
        "GATEWAY": _plain(config.gateway) + _resolve(config),
        "GATEWAY_GRPC": _plain(re.sub(":0$", ":8092", config.gateway_grpc)) + _resolve(config),
        "GATEWAY_KEY": gateway_key,
        **keys,
        "ADMISSION": "\n        ".join(
            _location(name, GATEWAY_KEY=gateway_key) for name in ("= /.admit", "@unknown_result")
        ),
        "MANAGEMENT_SERVER": _plain(_host(endpoints.management)) + _resolve(config),
        "METRICS_SERVER": _plain(_host(endpoints.metrics)) + _resolve(config),
        "HEALTH_EVENTS": _plain(_host(endpoints.health)),
        "MANAGEMENT": "allow" if config.open_management else "deny",
        "MANAGEMENT_HOSTS": _hosts(config),
        "CORS_ORIGINS": " ".join(f'"{_origin(origin)}" 1;' for origin in dict.fromkeys(config.cors_origins)),
        "CORS_VARY": "Origin" if config.cors_origins else "",
        "RATE_KEY": "$client_network" if config.rate else '""',
        "RATE": f"{config.rate or 1}r/s",
        "BURST": str(config.burst),
        "CLIENT_TIMEOUT": f"{config.client_timeout_s}s",
        "UPSTREAM_TIMEOUT": f"{config.upstream_timeout_s}s",
        **{
            name: _plain(config.route_models.get(route, config.image_model))
            for name, route in zip(_ROUTE_VARIABLES, IMAGE_ROUTES, strict=True)
        },
        "TEXT_MODELS": "|".join(map(_pattern, config.text_models)) or "(?!)",
        "WORKER_PROCESSES": str(config.workers),
        # `access_log off` would also disable the log of disconnected clients.
        "ACCESS_LOG": "/dev/null requests if=0" if config.access_log == "off" else config.access_log,
        "DEADLINES": _deadlines(GATEWAY_KEY=gateway_key, **keys),
        "WORK": _path(work),
        **_upstreams(config),
        **_limits(config.limits, config.workers),
    }


def _cache(config: NginxConfig) -> dict[str, str]:
    """Return the variables of the response cache."""
    if not config.uncached:
        return {
            "CACHE": "off",
            "UNCACHED_LISTEN": "",
            "UNCACHED_KEY": "off",
            "CACHE_HIDDEN_HEADERS": "",
            "CACHE_EXPOSED_HEADERS": "",
            "CACHE_HEADERS": "",
        }
    address = _plain(config.uncached)
    port = address.rpartition(":")[2]
    return {
        "CACHE": "on",
        "UNCACHED_LISTEN": f"listen {address};",
        "UNCACHED_KEY": f"{port}:{config.gateway_key and _plain(config.gateway_key)}",
        "CACHE_HIDDEN_HEADERS": "proxy_hide_header X-Cache;",
        "CACHE_EXPOSED_HEADERS": ", X-Cache, Age",
        # The key must not reach handlers.
        "CACHE_HEADERS": 'add_header X-Cache $cache_result always; proxy_set_header X-Gateway-Key "";',
    }


def _keys(config: NginxConfig) -> dict[str, str]:
    """Return the variables of the checks of API keys."""
    names = "ADMIT", "STRIP_KEY", "KEY_ID", "KEY_REQUESTS", "LOG_KEY_ID", "WITH_KEY"
    if not config.keys:
        return dict.fromkeys(names, "")
    values = (
        "auth_request /.admit; auth_request_set $admission $upstream_http_x_admission; "
        "auth_request_set $key_id $upstream_http_x_edge_key_id;",
        'proxy_set_header Authorization "";',
        "proxy_set_header X-Edge-Key-Id $key_id;",
        f"limit_conn key_requests {config.limits.key_requests};",
        " key=$key_id",
        ", with this API key",
    )
    return dict(zip(names, values, strict=True))


def _upstreams(config: NginxConfig) -> dict[str, str]:
    """Return the servers of each upstream group, one for each size class of bodies."""
    addresses = [_host(config.endpoints.inference), *config.others]
    groups: dict[str, str] = {}
    for (prefix, size), percent in zip(_MAX_BYTES_BY_CLASS.items(), _PERCENT, strict=True):
        bodies = max(1, config.limits.body_bytes * percent // (100 * size))
        groups[prefix + "INFERENCE_SERVERS"] = _servers(addresses, _resolve(config), bodies)
    return groups


def _location(name: str, **values: str) -> str:
    """Return the first location of this name in the template, which is that of REST, with values of variables."""
    template = TEMPLATE.read_text(encoding="utf-8")
    begin = template.index(f"        location {name} {{")
    block = template[begin : template.index("\n        }\n", begin)].strip() + "\n        }"
    return Template(block).safe_substitute(values)


def _deadlines(**values: str) -> str:
    """Return copies of four locations for each value of `$within`, because a timeout cannot be a variable."""
    copies = []
    for seconds in re.findall(r" _(\d+)s;$", TEMPLATE.read_text(encoding="utf-8"), re.MULTILINE):
        for name in ("cache", "torchserve", "lost", "resend"):
            head, body = _location(f"@{name}", **values).split("\n", 1)
            head = head.replace(f"@{name}", f"@{name}_{seconds}s")
            body = body.replace(
                "next_upstream_timeout 10s;", f"next_upstream_timeout {min(int(seconds), 10)}s;"
            )
            copies.append(f"{head}\n            proxy_read_timeout {seconds}s;\n{body}")
    return "\n        ".join(copies)


def _limits(limits: Limits, workers: int) -> dict[str, str]:
    """Return the variables of the limits. `reuseport` distributes connections evenly among the worker processes."""
    connections = -(-limits.connections // workers)
    open_files = 3 * connections + 512
    hard_limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]  # not even root can raise it in a container
    if hard_limit != resource.RLIM_INFINITY:
        open_files = min(open_files, hard_limit)
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
    ejection = _SINGLE_SERVER if len(servers) == 1 else _ONE_OF_SEVERAL
    return " ".join(f"server {address} {ejection} max_conns={bodies};" for address in servers)


def _resolve(config: NginxConfig) -> str:
    return " resolve" if config.resolver else ""


def _resolver(config: NginxConfig) -> str:
    """Return nginx's directive. IPv4 only, because TorchServe listens on 0.0.0.0."""
    return f"resolver {_plain(config.resolver)} valid=2s ipv6=off;" if config.resolver else ""


def _real_ip(config: NginxConfig) -> str:
    """Return nginx's directives for the client's address behind load balancers."""
    if not config.real_ip_from:
        if config.proxy_protocol:
            raise NginxError(
                "--proxy-protocol requires --real-ip-from, the networks whose PROXY headers are trusted"
            )
        return ""
    networks = []
    for text in config.real_ip_from:
        try:
            networks.append(ipaddress.ip_network(text, strict=False))
        except ValueError:
            raise NginxError(f"{text!r} is not a network such as 10.0.0.0/8") from None
    header = "proxy_protocol" if config.proxy_protocol else "X-Forwarded-For"
    trusted = " ".join(f"set_real_ip_from {network};" for network in networks)
    return f"{trusted} real_ip_header {header}; real_ip_recursive on;"


def _hosts(config: NginxConfig) -> str:
    """Return the entries of the map of Host headers, without ports, that the management API accepts."""
    listening = _plain(config.http).rpartition(":")[0]
    names = dict.fromkeys(["localhost", "127.0.0.1", "[::1]", listening, *config.server_names])
    return " ".join(f'"{_plain(name).lower()}" 1;' for name in names)


def _host(url: str) -> str:
    return urlsplit(url).netloc


def _plain(text: str) -> str:
    if not _PLAIN.fullmatch(text):
        raise NginxError(f"{text!r} is not an address or name")
    return text


def _origin(text: str) -> str:
    """Return an entry of the map of Origin headers."""
    if text == "*":
        return r"~^\S+$"
    if not _ORIGIN.fullmatch(text):
        raise NginxError(
            f"--cors-origin: {text!r} is neither * nor an origin such as https://app.example "
            f"(scheme and host in lower case, the port unless it is the scheme's default, no path)"
        )
    return text


def _pattern(name: str) -> str:
    """Return a regular expression for a model's name."""
    return re.sub(r"([.+\[\]])", r"\\\1", _plain(name))


def _path(path: Path) -> str:
    text = str(path.resolve())
    if set(text) & set(" ;{}\"'$\\\n"):
        raise NginxError(
            f"the path {text!r} contains a space or one of ; {{ }} \" ' $ \\, which nginx cannot use"
        )
    return text


def _quoted(path: Path) -> str:
    return f'"{_path(path)}"'
