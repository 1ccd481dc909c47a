"""nginx's configuration: filled in rightly, refused where a value could change its meaning, read by nginx itself."""

import re
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from tests.tools import needs
from torchserve_models.client import Endpoints
from torchserve_models.gateway.front import _parser
from torchserve_models.gateway.front_options import edge_settings
from torchserve_models.gateway.nginx import (
    TEMPLATE,
    Limits,
    NginxConfig,
    NginxError,
    Tls,
    command,
    render,
    variables,
)
from torchserve_models.gateway.unavailable import WORKER_DIED

needs_nginx = needs("nginx")


def test_every_variable_is_given_and_none_too_many(tmp_path):
    asked = set(re.findall(r"\$\{([A-Z_]+)\}", TEMPLATE.read_text()))
    assert asked == variables(NginxConfig(), tmp_path).keys()


def test_it_says_what_was_asked_for(tmp_path):
    front = NginxConfig(
        http="0.0.0.0:80",
        endpoints=Endpoints(inference="http://a:1", grpc_inference="a:2", management="http://a:3"),
        others=(("b:1", "b:2"),),
        open_management=True,
        rate=5,
        client_timeout=7,
    )
    text = render(front, tmp_path)
    for part in (
        "listen 0.0.0.0:80 backlog",
        "listen 127.0.0.1:7000 http2 backlog",
        "server a:1 max_fails=20 fail_timeout=1s max_conns=644; server b:1 max_fails=20",
        "server a:2 max_fails=20 fail_timeout=1s max_conns=322; server b:2 max_fails=20",
        "limit_req_zone $client_network zone=clients:10m rate=5r/s;",
        "client_body_timeout 7s;",
        "allow all;",
        "$request_name",
    ):
        assert part in text
    assert "deny all;" not in text
    assert "${" not in text


def test_it_is_closed_and_counts_nobody_unless_asked(tmp_path):
    text = render(NginxConfig(), tmp_path)
    assert text.count("deny all;") == 3
    assert "allow all;" not in text
    assert 'limit_req_zone "" zone' in text


@pytest.mark.parametrize(
    "front",
    [
        NginxConfig(http="127.0.0.1:80; evil"),
        NginxConfig(image_model="a;b"),
        NginxConfig(route_models={"/model": "a b"}),
        NginxConfig(cors_origins=("https://app.example/",)),
        NginxConfig(cors_origins=("https://App.example",)),
        NginxConfig(cors_origins=("app.example",)),
        NginxConfig(cors_origins=("null",)),
        NginxConfig(cors_origins=('https://a" 1; "b',)),
        NginxConfig(others=(("host name:1", "b:2"),)),
        NginxConfig(text_models=("a|b",)),
        NginxConfig(server_names=("a;b",)),
        NginxConfig(gateway_key="a b"),
        NginxConfig(real_ip_from=("nowhere",)),
        NginxConfig(proxy_protocol=True),
        NginxConfig(tls=Tls(Path('/a"b'), Path("/c"))),
        NginxConfig(tls=Tls(Path("/a$b"), Path("/c"))),
    ],
)
def test_a_value_that_would_change_the_configuration_is_refused(front, tmp_path):
    with pytest.raises(NginxError):
        render(front, tmp_path)


def test_the_length_of_a_dead_workers_answer_is_that_of_torchserve():
    assert set(re.findall(r"50\[07\] (\d+)\$", TEMPLATE.read_text())) == {str(len(WORKER_DIED))}
    assert f'"{len(WORKER_DIED)}" /.died;' in TEMPLATE.read_text()


def test_each_route_has_its_own_model(tmp_path):
    """Case 20."""
    values = variables(NginxConfig(image_model="a", route_models={"/model": "c", "/predict": "b"}), tmp_path)
    assert [values[name] for name in ("PREDICT_MODEL", "IMAGE_CLASSES_MODEL", "PIXEL_MODEL")] == [
        "b",
        "a",
        "c",
    ]


def test_names_of_text_models_are_taken_as_they_are(tmp_path):
    values = variables(NginxConfig(text_models=("t5-small", "a.b+c")), tmp_path)
    pattern = re.compile(values["TEXT_MODELS"])
    assert pattern.fullmatch("t5-small")
    assert pattern.fullmatch("a.b+c")
    assert not pattern.fullmatch("aXb+c")
    assert not re.fullmatch(variables(NginxConfig(text_models=()), tmp_path)["TEXT_MODELS"], "")


@pytest.mark.parametrize("body_bytes", [2**27, 2**29, 2**31])
def test_bodies_of_all_sizes_together_stay_below_the_limit(tmp_path, body_bytes):
    """With one of each size at least."""
    values = variables(NginxConfig(limits=Limits(body_bytes=body_bytes)), tmp_path)
    sizes = {"": 100_000, "MEDIUM_": 1_000_000, "LARGE_": 4_200_000, "HUGE_": 16 * 2**20}
    counts = {
        (prefix, kind): int(re.search(r"max_conns=(\d+);", values[f"{prefix}{kind}_SERVERS"])[1])
        for prefix in sizes
        for kind in ("INFERENCE", "GRPC")
    }
    assert min(counts.values()) >= 1
    total = sum(count * sizes[prefix] for (prefix, _), count in counts.items())
    assert 0.7 * body_bytes < total < 1.2 * body_bytes


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
def test_nginx_waits_for_torchserve_until_the_requests_deadline(tmp_path, timeout, within):
    """Rounded up to a time that has a location."""
    text = render(NginxConfig(), tmp_path)
    (times,) = re.findall(r"map \$http_x_request_timeout \$within \{(.*?)\n    \}", text, re.DOTALL)
    patterns = re.findall(r'"~(.+)" _(\d+)s;', times)
    assert len(patterns) == 10
    assert next((int(s) for pattern, s in patterns if re.match(pattern, timeout)), None) == within
    if within:
        (location,) = re.findall(rf"location @torchserve_{within}s \{{(.*?)\n        \}}", text, re.DOTALL)
        assert f"proxy_read_timeout {within}s;" in location
        assert f"proxy_next_upstream_timeout {min(within, 10)}s;" in location


def test_an_unknown_variable_in_the_template_is_named(tmp_path):
    template = tmp_path / "template"
    template.write_text("listen ${NOWHERE};")
    with pytest.raises(NginxError, match="NOWHERE"):
        render(NginxConfig(), tmp_path, template)


@needs_nginx
@pytest.mark.parametrize(
    "front",
    [
        NginxConfig(),
        NginxConfig(rate=3, open_management=True, others=(("127.0.0.2:1", "127.0.0.2:2"),)),
        NginxConfig(
            real_ip_from=("10.0.0.0/8", "fd00::/8"), proxy_protocol=True, streaming=True, gateway_key="k"
        ),
        NginxConfig(text_models=()),
        NginxConfig(
            cors_origins=("*", "*", "https://app.example", "http://[::1]:3000", "http://" + "a" * 120)
        ),
        NginxConfig(text_models=("a.b+c", "d"), server_names=("models.example", "[::2]"), workers=5),
    ],
)
def test_nginx_itself_reads_it(front, tmp_path):
    assert str(tmp_path / "nginx.conf") in command(front, tmp_path)


@needs_nginx
def test_what_nginx_says_about_a_bad_file_is_told(tmp_path):
    with pytest.raises(NginxError, match="no-such-file"):
        command(NginxConfig(tls=Tls(Path("/no-such-file"), Path("/no-such-key"))), tmp_path)


@needs_nginx
@needs("envsubst")
def test_the_same_by_envsubst_as_nginxs_image_does_it(tmp_path):
    values = variables(NginxConfig(), tmp_path)
    names = " ".join(f"${{{name}}}" for name in values)
    done = subprocess.run(
        ["envsubst", names],
        input=TEMPLATE.read_text(),
        env=values,
        text=True,
        capture_output=True,
        check=True,
    )
    assert done.stdout == render(NginxConfig(), tmp_path)


def test_the_command_line():
    options = _parser().parse_args(
        ["--tls", "c.pem", "k.pem", "--upstream", "b:1:2", "--upstream", "[::1]:3:4", "--summarizer", "x=y"]
        + ["--route-model", "/model=z"]
    )
    assert options.route_model == [("/model", "z")]
    assert options.tls == [Path("c.pem"), Path("k.pem")]
    assert options.upstream == [("b:1", "b:2"), ("[::1]:3", "[::1]:4")]
    assert options.summarizer == [("x", "y")]
    for wrong in (
        ["--upstream", "b:1"],
        ["--summarizer", "x"],
        ["--route-model", "/x=y"],
        ["--tls", "c.pem"],
        ["--port", "a"],
    ):
        with pytest.raises(SystemExit):
            _parser().parse_args(wrong)


def test_the_options_for_limits_and_addresses():
    line = "--client-requests 9 --client-uploads 3 --connections 100 --body-memory 64 --text-model a --proxy-protocol"
    line += " --all-requests 90 --all-uploads 30 --resend-rate 4 --rate 7 --burst 8 --tls c.pem k.pem --access-log"
    line += (
        " --real-ip-from 10.0.0.0/8 --real-ip-from fd00::/8 --server-name models.example --allow-streaming"
        " --cors-origin https://a.example --cors-origin https://b.example"
    )
    front = NginxConfig(**edge_settings(_parser().parse_args(line.split()), ("t5-small",), 2**29))
    assert front.limits == Limits(
        connections=100,
        client_requests=9,
        client_uploads=3,
        all_requests=90,
        all_uploads=30,
        body_bytes=64 * 2**20,
        resends_per_second=4,
        resend_burst=8,
    )
    assert (front.rate, front.burst, front.tls) == (7, 8, Tls(Path("c.pem"), Path("k.pem")))
    assert (front.access_log, front.open_management) == ("/dev/stdout requests", False)
    assert front.text_models == ("t5-small", "a")
    assert front.real_ip_from == ("10.0.0.0/8", "fd00::/8")
    assert (front.proxy_protocol, front.streaming, front.server_names) == (True, True, ("models.example",))
    assert front.cors_origins == ("https://a.example", "https://b.example")
    default = NginxConfig(**edge_settings(_parser().parse_args([]), NginxConfig().text_models, 3 * 2**20))
    assert default.limits.body_bytes == 3 * 2**20
    assert replace(default, limits=NginxConfig().limits) == NginxConfig()
    with pytest.raises(SystemExit):
        _parser().parse_args(["--client-requests", "0"])


def test_names_are_looked_up_again_where_a_resolver_is_named(tmp_path):
    front = NginxConfig(
        endpoints=Endpoints.at("torchserve"), gateway="torchserve:8090", resolver="127.0.0.11"
    )
    text = render(front, tmp_path)
    assert "resolver 127.0.0.11 valid=2s ipv6=off;" in text
    servers = re.findall(r"server (torchserve:\d+)( resolve)?", text)
    assert len(servers) == 12
    assert all(resolve for _, resolve in servers)
    for upstream in re.findall(r"upstream \w+ \{[^}]*\}", text):
        assert ("zone " in upstream) or "resolve" not in upstream  # nginx asks for it
    assert "resolve" not in "".join(variables(NginxConfig(), tmp_path).values())
