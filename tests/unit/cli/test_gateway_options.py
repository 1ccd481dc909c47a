"""Options of the gateway's commands: models behind routes, TLS, limits and addresses."""

from dataclasses import replace
from pathlib import Path

import pytest

from tests.unit.cli.parsing import parse_options
from torchserve_models.cli import main
from torchserve_models.cli.gateway_options import CacheOptions, EdgeOptions, ModelRoutes
from torchserve_models.gateway.nginx.config import Limits, NginxConfig, Tls
from torchserve_models.gateway.settings import GatewaySettings


def test_model_routes_are_mappings():
    routes = parse_options(ModelRoutes, "--summarizer", "x=y", "--route-model", "/model=z")
    assert (routes.route_models, routes.summarizers) == ({"/model": "z"}, {"x": "y"})
    default = parse_options(ModelRoutes)
    assert (default.route_models, default.summarizers) == ({}, GatewaySettings().summarizers)


@pytest.mark.parametrize(
    "arguments",
    [
        ["--upstream", "b"],
        ["--summarizer", "x"],
        ["--route-model", "/x=y"],
        ["--tls", "c.pem"],
        ["--port", "a"],
        ["--client-requests", "0"],
        ["--grace", "nan"],
        ["--drain-delay", "3601"],
        ["--cache-size", "many"],
        ["--cache-size", "257m"],
        ["--cache-ttl", "0"],
        ["--upstream", "b:1", "--cache-size", "1m"],
    ],
)
def test_wrong_option_is_a_usage_error(arguments, capsys):
    assert main(["gateway", *arguments]) == 2
    assert arguments[0] in capsys.readouterr().err


def test_edge_options_become_the_configuration_of_nginx():
    line = "--client-requests 9 --client-uploads 3 --connections 100 --body-memory 64 --text-model a --proxy-protocol"
    line += " --all-requests 90 --all-uploads 30 --resend-rate 4 --rate 7 --burst 8 --tls c.pem k.pem --access-log"
    line += (
        " --real-ip-from 10.0.0.0/8 --real-ip-from fd00::/8 --server-name models.example"
        " --cors-origin https://a.example --cors-origin https://b.example"
    )
    config = NginxConfig(**parse_options(EdgeOptions, *line.split()).nginx_settings(("t5-small",), 2**29))
    assert config.limits == Limits(
        connections=100,
        client_requests=9,
        client_uploads=3,
        all_requests=90,
        all_uploads=30,
        body_bytes=64 * 2**20,
        resends_per_second=4,
        resend_burst=8,
    )
    assert (config.rate, config.burst, config.tls) == (7, 8, Tls(Path("c.pem"), Path("k.pem")))
    assert (config.access_log, config.open_management) == ("/dev/stdout requests", False)
    assert config.text_models == ("t5-small", "a")
    assert config.real_ip_from == ("10.0.0.0/8", "fd00::/8")
    assert (config.proxy_protocol, config.server_names) == (True, ("models.example",))
    assert config.cors_origins == ("https://a.example", "https://b.example")


def test_defaults_are_those_of_the_configuration():
    settings = parse_options(EdgeOptions).nginx_settings(NginxConfig().text_models, 3 * 2**20)
    config = NginxConfig(**settings)
    assert config.limits.body_bytes == 3 * 2**20
    assert replace(config, limits=NginxConfig().limits) == NginxConfig()


def test_cache_options_become_settings():
    routes = parse_options(ModelRoutes, "--image-model", "a")
    assert parse_options(CacheOptions).gateway_settings(routes) == GatewaySettings(image_model="a")
    cache = parse_options(
        CacheOptions, "--cache-size", "1m", "--cache-ttl", "60", "--cache-check-timeout", "2"
    )
    settings = cache.gateway_settings(routes, strict=True)
    expected = GatewaySettings(
        image_model="a", strict=True, cache_bytes=2**20, cache_ttl_s=60, cache_check_timeout_s=2
    )
    assert settings == expected
