"""nginx.conf: rendered correctly, rejected if a value could change its meaning, and accepted by nginx itself."""

import re
import subprocess
from pathlib import Path

import pytest

from tests.tools import needs
from torchserve_models.client import Endpoints
from torchserve_models.gateway.nginx.config import Limits, NginxConfig, NginxError, Tls
from torchserve_models.gateway.nginx.executable import start_command
from torchserve_models.gateway.nginx.template import TEMPLATE, render_config, template_variables
from torchserve_models.gateway.upstream.unavailable_diagnosis import WORKER_DIED

needs_nginx = needs("nginx")


def test_values_match_the_variables_of_the_template(tmp_path):
    names = set(re.findall(r"\$\{([A-Z_]+)\}", TEMPLATE.read_text()))
    assert names == template_variables(NginxConfig(), tmp_path).keys()


def test_settings_appear_in_the_configuration(tmp_path):
    config = NginxConfig(
        http="0.0.0.0:80",
        endpoints=Endpoints(inference="http://a:1", management="http://a:3"),
        others=("b:1",),
        open_management=True,
        rate=5,
        client_timeout_s=7,
    )
    text = render_config(config, tmp_path)
    for part in (
        "listen 0.0.0.0:80 backlog",
        "listen 127.0.0.1:7000 http2 backlog",
        "server a:1 max_fails=20 fail_timeout=1s max_conns=644; server b:1 max_fails=20",
        "limit_req_zone $client_network zone=clients:10m rate=5r/s;",
        "client_body_timeout 7s;",
        "allow all;",
        "$request_name",
    ):
        assert part in text
    assert "deny all;" not in text
    assert "${" not in text


def test_management_and_rate_limit_are_off_by_default(tmp_path):
    text = render_config(NginxConfig(), tmp_path)
    assert text.count("deny all;") == 3
    assert "allow all;" not in text
    assert 'limit_req_zone "" zone' in text


@pytest.mark.parametrize(
    "config",
    [
        NginxConfig(http="127.0.0.1:80; evil"),
        NginxConfig(image_model="a;b"),
        NginxConfig(route_models={"/model": "a b"}),
        NginxConfig(cors_origins=("https://app.example/",)),
        NginxConfig(cors_origins=("https://App.example",)),
        NginxConfig(cors_origins=("app.example",)),
        NginxConfig(cors_origins=("null",)),
        NginxConfig(cors_origins=('https://a" 1; "b',)),
        NginxConfig(others=("host name:1",)),
        NginxConfig(text_models=("a|b",)),
        NginxConfig(server_names=("a;b",)),
        NginxConfig(gateway_key="a b"),
        NginxConfig(uncached="127.0.0.1:1; evil"),
        NginxConfig(real_ip_from=("nowhere",)),
        NginxConfig(proxy_protocol=True),
        NginxConfig(tls=Tls(Path('/a"b'), Path("/c"))),
        NginxConfig(tls=Tls(Path("/a$b"), Path("/c"))),
    ],
)
def test_value_that_would_change_the_configuration_is_rejected(config, tmp_path):
    with pytest.raises(NginxError):
        render_config(config, tmp_path)


def test_response_length_of_a_dead_worker_matches_torchserve():
    assert set(re.findall(r"50\[07\] (\d+)\$", TEMPLATE.read_text())) == {str(len(WORKER_DIED))}
    assert f'"{len(WORKER_DIED)}" /.died;' in TEMPLATE.read_text()


def test_each_image_route_may_have_a_different_model(tmp_path):
    values = template_variables(
        NginxConfig(image_model="a", route_models={"/model": "c", "/predict": "b"}), tmp_path
    )
    assert [values[name] for name in ("PREDICT_MODEL", "IMAGE_CLASSES_MODEL", "PIXEL_MODEL")] == [
        "b",
        "a",
        "c",
    ]


def test_response_cache_is_off_by_default(tmp_path):
    assert template_variables(NginxConfig(), tmp_path)["CACHE"] == "off"
    values = template_variables(NginxConfig(uncached="127.0.0.1:8092", gateway_key="k"), tmp_path)
    assert (values["CACHE"], values["UNCACHED_KEY"]) == ("on", "8092:k")
    assert "listen 127.0.0.1:8092;" in render_config(NginxConfig(uncached="127.0.0.1:8092"), tmp_path)


@pytest.mark.parametrize(
    "part",
    [
        "listen 127.0.0.1:8092;",
        "proxy_hide_header X-Cache;",
        "add_header X-Cache ",
        ", X-Cache, Age",
        '; proxy_set_header X-Gateway-Key "";',
    ],
)
def test_headers_of_the_response_cache_depend_on_it(tmp_path, part):
    assert part not in render_config(NginxConfig(cors_origins=("*",)), tmp_path)
    assert part in render_config(NginxConfig(uncached="127.0.0.1:8092", cors_origins=("*",)), tmp_path)


def test_locations_of_the_response_cache_have_the_key_and_the_deadline(tmp_path):
    text = render_config(NginxConfig(uncached="127.0.0.1:8092", gateway_key="secret"), tmp_path)
    locations = re.findall(r"location @cache(_\d+s|) \{(.*?)\n        \}", text, re.DOTALL)
    assert len(locations) == 11
    for suffix, location in locations:
        assert 'X-Gateway-Key "secret";' in location
        timeouts = re.findall(r"proxy_read_timeout (\d+s);", location)
        assert timeouts == ([suffix[1:]] if suffix else [])


def test_text_model_names_are_matched_literally(tmp_path):
    values = template_variables(NginxConfig(text_models=("t5-small", "a.b+c")), tmp_path)
    pattern = re.compile(values["TEXT_MODELS"])
    assert pattern.fullmatch("t5-small")
    assert pattern.fullmatch("a.b+c")
    assert not pattern.fullmatch("aXb+c")
    assert not re.fullmatch(template_variables(NginxConfig(text_models=()), tmp_path)["TEXT_MODELS"], "")


@pytest.mark.parametrize("body_bytes", [2**27, 2**29, 2**31])
def test_bodies_of_all_size_classes_together_stay_below_the_limit(tmp_path, body_bytes):
    values = template_variables(NginxConfig(limits=Limits(body_bytes=body_bytes)), tmp_path)
    sizes = {"": 100_000, "MEDIUM_": 1_000_000, "LARGE_": 4_200_000, "HUGE_": 16 * 2**20}
    counts = {
        prefix: int(re.search(r"max_conns=(\d+);", values[f"{prefix}INFERENCE_SERVERS"])[1])
        for prefix in sizes
    }
    assert min(counts.values()) >= 1
    total = sum(count * sizes[prefix] for prefix, count in counts.items())
    assert 0.5 * body_bytes < total < body_bytes


@pytest.mark.parametrize(
    ("timeout", "within"),
    [
        ("0", 1),
        ("0.0", 1),
        ("0.001", 1),
        ("1", 1),
        ("1.000", 1),
        ("1.001", 2),
        ("2.5", 3),
        ("3", 3),
        ("3.000000001", 5),
        ("4.9", 5),
        ("05", 5),
        ("5.1", 10),
        ("9", 10),
        ("10.0", 10),
        ("10.1", 20),
        ("29.998", 30),
        ("30", 30),
        ("31", 60),
        ("60.5", 120),
        ("99", 120),
        ("119.9", 120),
        ("120.1", 240),
        ("240", 240),
        *((text, None) for text in ("240.1", "1000", "", "soon", "-1", "1e3", "5s", ".5")),
    ],
)
def test_upstream_timeout_is_the_deadline_rounded_up_to_a_location(tmp_path, timeout, within):
    text = render_config(NginxConfig(), tmp_path)
    (times,) = re.findall(r"map \$http_x_request_timeout \$within \{(.*?)\n    \}", text, re.DOTALL)
    patterns = re.findall(r'"~(.+)" _(\d+)s;', times)
    assert len(patterns) == 10
    assert next((int(s) for pattern, s in patterns if re.match(pattern, timeout)), None) == within
    if within:
        (location,) = re.findall(rf"location @torchserve_{within}s \{{(.*?)\n        \}}", text, re.DOTALL)
        assert f"proxy_read_timeout {within}s;" in location
        assert f"proxy_next_upstream_timeout {min(within, 10)}s;" in location


def test_unknown_variable_of_the_template_is_an_error(tmp_path):
    template = tmp_path / "template"
    template.write_text("listen ${NOWHERE};")
    with pytest.raises(NginxError, match="NOWHERE"):
        render_config(NginxConfig(), tmp_path, template)


@needs_nginx
@pytest.mark.parametrize(
    "config",
    [
        NginxConfig(),
        NginxConfig(rate=3, open_management=True, others=("127.0.0.2:1",)),
        NginxConfig(real_ip_from=("10.0.0.0/8", "fd00::/8"), proxy_protocol=True, gateway_key="k"),
        NginxConfig(text_models=()),
        NginxConfig(uncached="127.0.0.1:1", gateway_key="k", cors_origins=("*",)),
        NginxConfig(
            cors_origins=("*", "*", "https://app.example", "http://[::1]:3000", "http://" + "a" * 120)
        ),
        NginxConfig(text_models=("a.b+c", "d"), server_names=("models.example", "[::2]"), workers=5),
        NginxConfig(uncached="127.0.0.1:8092", gateway_key="k", proxy_protocol=True, real_ip_from=("::1",)),
    ],
)
def test_nginx_accepts_the_configuration(config, tmp_path):
    assert str(tmp_path / "nginx.conf") in start_command(config, tmp_path)


@needs_nginx
def test_nginx_error_message_is_reported(tmp_path):
    with pytest.raises(NginxError, match="no-such-file"):
        start_command(NginxConfig(tls=Tls(Path("/no-such-file"), Path("/no-such-key"))), tmp_path)


@needs_nginx
@needs("envsubst")
def test_envsubst_renders_the_same_configuration(tmp_path):
    values = template_variables(NginxConfig(), tmp_path)
    names = " ".join(f"${{{name}}}" for name in values)
    substituted = subprocess.run(
        ["envsubst", names],
        input=TEMPLATE.read_text(),
        env=values,
        text=True,
        capture_output=True,
        check=True,
    )
    assert substituted.stdout == render_config(NginxConfig(), tmp_path)


def test_host_names_are_looked_up_again_with_a_resolver(tmp_path):
    config = NginxConfig(
        endpoints=Endpoints.at("torchserve"),
        gateway="torchserve:8090",
        gateway_grpc="torchserve:8092",
        resolver="127.0.0.11",
    )
    text = render_config(config, tmp_path)
    assert "resolver 127.0.0.11 valid=2s ipv6=off;" in text
    servers = re.findall(r"server (torchserve:\d+)( resolve)?", text)
    assert len(servers) == 13
    assert all(resolve for _, resolve in servers)
    for upstream in re.findall(r"upstream \w+ \{[^}]*\}", text):
        assert ("zone " in upstream) or "resolve" not in upstream  # nginx requires a zone for `resolve`
    assert "resolve" not in "".join(template_variables(NginxConfig(), tmp_path).values())


# Locations of clients' requests that need no key: unknown routes, probes and documentation.
OPEN_LOCATIONS = {
    "/",
    "~ ^/(?:livez|readyz(?:/.*)?|ping|v2/health/(?:live|ready)|v1/models/[^/:]+|"
    "v2/models/[^/]+(?:/versions/[^/]+)?/ready)$",
    r"~ ^/(?:|openapi\.json|(?:v2|docs)(?:/.*)?)$",
    r'~ "^/grpc\.(?:health\.v1\.Health/(?:Check|Watch|List)|'
    r'reflection\.v1(?:alpha)?\.ServerReflection/ServerReflectionInfo)$"',
}


def locations(tmp_path):
    """Return the name and directives of each location of the two servers for clients, with keys."""
    text = render_config(NginxConfig(keys=True, uncached="127.0.0.1:8092"), tmp_path)
    _, rest, internal, grpc = text.split("\n    server {\n")
    assert "# The internal server" in rest
    assert "/edge/nginx" in internal
    return re.findall(r"\n        location ([^\n]*) \{\n(.*?)\n        \}", rest + grpc, re.DOTALL)


def test_every_other_location_requires_a_key(tmp_path):
    public = [
        (name, body) for name, body in locations(tmp_path) if name[0] != "@" and "internal;" not in body
    ]
    closed = {name for name, body in public if "auth_request /.admit;" in body}
    assert {name for name, _ in public} - closed == OPEN_LOCATIONS
    for name, body in public:
        # `rewrite ... break` ends the directives of the rewrite module.
        scope, rewrite = body.find("set $required_scope"), re.search(r"rewrite [^\n]* break;", body)
        assert name not in closed or (scope >= 0 and (rewrite is None or scope < rewrite.start())), name


def test_keys_are_removed_wherever_headers_are_set(tmp_path):
    """A location with `proxy_set_header` does not inherit that of the server."""
    setting = [(name, body) for name, body in locations(tmp_path) if "proxy_set_header" in body]
    assert len(setting) > 10
    for name, body in setting:
        assert 'proxy_set_header Authorization "";' in body or "proxy_pass_request_headers off;" in body, name


def test_keys_are_off_by_default(tmp_path):
    text = render_config(NginxConfig(), tmp_path)
    for part in (
        "auth_request /.admit",
        "_set_header Authorization",
        "X-Edge-Key-Id",
        "limit_conn key_requests",
        "key=$key_id",
        "with this API key or",
    ):
        assert part not in text
        assert part in render_config(NginxConfig(keys=True), tmp_path)


@needs_nginx
@pytest.mark.parametrize("options", [{}, {"uncached": "127.0.0.1:8092"}])
def test_nginx_accepts_the_configuration_with_keys(tmp_path, options):
    assert start_command(
        NginxConfig(
            keys=True, gateway_key="k", open_management=True, access_log="/dev/null requests", **options
        ),
        tmp_path,
    )
