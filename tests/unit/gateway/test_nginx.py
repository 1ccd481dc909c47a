"""nginx's configuration: filled in rightly, refused where a value could change its meaning, read by nginx itself."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from client import Endpoints
from gateway.front import _parser
from gateway.nginx import TEMPLATE, Front, NginxError, Tls, command, render, variables

needs_nginx = pytest.mark.skipif(
    shutil.which("nginx", path="/usr/sbin:" + os.environ["PATH"]) is None, reason="nginx is not installed"
)


def test_every_variable_is_given_and_none_too_many(tmp_path):
    asked = set(re.findall(r"\$\{([A-Z_]+)\}", TEMPLATE.read_text()))
    assert asked == variables(Front(), tmp_path).keys()


def test_it_says_what_was_asked_for(tmp_path):
    front = Front(
        http="0.0.0.0:80",
        endpoints=Endpoints(inference="http://a:1", grpc_inference="a:2", management="http://a:3"),
        others=(("b:1", "b:2"),),
        open_management=True,
        rate=5,
        client_timeout=7,
    )
    text = render(front, tmp_path)
    for part in (
        "listen 0.0.0.0:80;",
        "listen 127.0.0.1:7000 http2;",
        "server a:1; server b:1;",
        "server a:2; server b:2;",
        "limit_req_zone $binary_remote_addr zone=clients:10m rate=5r/s;",
        "client_body_timeout 7s;",
        "allow all;",
        "$request_name",
    ):
        assert part in text
    assert "deny all;" not in text
    assert "${" not in text


def test_it_is_closed_and_counts_nobody_unless_asked(tmp_path):
    text = render(Front(), tmp_path)
    assert text.count("deny all;") == 2
    assert "allow all;" not in text
    assert 'limit_req_zone "" zone' in text


@pytest.mark.parametrize(
    "front",
    [
        Front(http="127.0.0.1:80; evil"),
        Front(image_model="a;b"),
        Front(others=(("host name:1", "b:2"),)),
        Front(tls=Tls(Path('/a"b'), Path("/c"))),
        Front(tls=Tls(Path("/a$b"), Path("/c"))),
    ],
)
def test_a_value_that_would_change_the_configuration_is_refused(front, tmp_path):
    with pytest.raises(NginxError):
        render(front, tmp_path)


def test_an_unknown_variable_in_the_template_is_named(tmp_path):
    template = tmp_path / "template"
    template.write_text("listen ${NOWHERE};")
    with pytest.raises(NginxError, match="NOWHERE"):
        render(Front(), tmp_path, template)


@needs_nginx
@pytest.mark.parametrize(
    "front", [Front(), Front(rate=3, open_management=True, others=(("127.0.0.2:1", "127.0.0.2:2"),))]
)
def test_nginx_itself_reads_it(front, tmp_path):
    assert str(tmp_path / "nginx.conf") in command(front, tmp_path)


@needs_nginx
def test_what_nginx_says_about_a_bad_file_is_told(tmp_path):
    with pytest.raises(NginxError, match="no-such-file"):
        command(Front(tls=Tls(Path("/no-such-file"), Path("/no-such-key"))), tmp_path)


@needs_nginx
@pytest.mark.skipif(shutil.which("envsubst") is None, reason="envsubst (gettext-base) is not installed")
def test_the_same_by_envsubst_as_nginxs_image_does_it(tmp_path):
    values = variables(Front(), tmp_path)
    names = " ".join(f"${{{name}}}" for name in values)
    done = subprocess.run(
        ["envsubst", names],
        input=TEMPLATE.read_text(),
        env=values,
        text=True,
        capture_output=True,
        check=True,
    )
    assert done.stdout == render(Front(), tmp_path)


def test_the_command_line():
    options = _parser().parse_args(
        ["--tls", "c.pem", "k.pem", "--upstream", "b:1:2", "--upstream", "[::1]:3:4", "--summarizer", "x=y"]
    )
    assert options.tls == [Path("c.pem"), Path("k.pem")]
    assert options.upstream == [("b:1", "b:2"), ("[::1]:3", "[::1]:4")]
    assert options.summarizer == [("x", "y")]
    for wrong in (["--upstream", "b:1"], ["--summarizer", "x"], ["--tls", "c.pem"], ["--port", "a"]):
        with pytest.raises(SystemExit):
            _parser().parse_args(wrong)
