"""The pages of torchserve_models/demo/ in front of the server under test, and a browser to look at them with."""

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import httpx
import pytest

from tests.conftest import ROOT
from torchserve_models.client import Client

PYTHON = ROOT / ".venv-demo" / "bin" / "python"


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator["Browser"]:  # noqa: F821
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not (chromium and driver):
        pytest.skip(
            "chromium or chromedriver is not installed (Debian: apt-get install chromium chromium-driver)"
        )
    from tests.browser.chromium import Browser

    browser = Browser(chromium, driver, tmp_path_factory.mktemp("chromium"))
    try:
        yield browser
    finally:
        browser.close()


@pytest.fixture(scope="session")
def served(server, browser) -> Iterator[Callable[[str], str]]:
    """The address of a page of torchserve_models/demo/, started by the first test that asks for it."""
    if not PYTHON.exists():
        pytest.skip(".venv-demo is not there (scripts/setup --demo)")
    addresses: dict[str, str] = {}
    with ExitStack() as stack:

        def address(page: str) -> str:
            if page not in addresses:
                port = free_port()
                command = [str(ROOT / "scripts" / "demo"), page, "--port", str(port)]
                for name in ("inference", "management", "metrics"):
                    command += [f"--{name}-port", getattr(server, name).rpartition(":")[2]]
                addresses[page] = stack.enter_context(started(command, f"http://127.0.0.1:{port}"))
            return addresses[page]

        yield address


@contextmanager
def started(command: list[str], url: str) -> Iterator[str]:
    """`url` as soon as the command answers there; the command is ended afterwards."""
    process = subprocess.Popen(command, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)})
    try:
        end = time.monotonic() + 60
        while not answers(url):
            assert process.poll() is None, f"{command} ended with {process.returncode}"
            assert time.monotonic() < end, f"{command} does not answer"
            time.sleep(0.2)
        yield url
    finally:
        process.terminate()
        assert process.wait(20) in (0, -signal.SIGTERM)


def answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=5, trust_env=False).is_success
    except httpx.HTTPError:
        return False


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@pytest.fixture(scope="session")
def api(server) -> Iterator[Client]:
    """What the pages must agree with."""
    with Client(endpoints=server.endpoints) as client:
        yield client
