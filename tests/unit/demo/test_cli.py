"""The command says what is wrong before it starts anything."""

import socket

import pytest

from demo.cli import main


@pytest.fixture
def port():
    """One on which nobody listens, but which is taken."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


def test_without_a_server_the_command_says_what_starts_one(port, capsys):
    assert main(["--management-port", str(port)]) == 1
    error = capsys.readouterr().err
    assert f"no server to show at http://127.0.0.1:{port}" in error
    assert "scripts/serve" in error
    assert "Traceback" not in error


def test_an_unknown_page_is_refused(capsys):
    with pytest.raises(SystemExit) as caught:
        main(["flask"])
    assert caught.value.code == 2
    assert "gradio" in capsys.readouterr().err
