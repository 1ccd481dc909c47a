"""Fixtures: the browser, and the pages of torchserve_models/demo/ for the server under test."""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import httpx
import pytest

from tests.conftest import ROOT
from torchserve_models.client import Client
from torchserve_models.reserved_ports import port_of, reserve_port

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
def page_url(server, browser) -> Iterator[Callable[[str], str]]:
    """Return a function that starts a demo page at its first call and returns its address."""
    if not PYTHON.exists():
        pytest.skip(".venv-demo is not there (scripts/setup --demo)")
    addresses: dict[str, str] = {}
    with ExitStack() as stack:

        def address(page: str) -> str:
            if page not in addresses:
                port = port_of(stack.enter_context(reserve_port()))
                command = [str(ROOT / "scripts" / "demo"), page, "--port", str(port)]
                for name in ("inference", "management", "metrics"):
                    command += [f"--{name}-port", getattr(server, name).rpartition(":")[2]]
                addresses[page] = stack.enter_context(run_page(command, f"http://127.0.0.1:{port}"))
            return addresses[page]

        yield address


@contextmanager
def run_page(command: list[str], url: str) -> Iterator[str]:
    """Run a command in this context, and return `url` once it responds."""
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


@pytest.fixture(scope="session")
def api(server) -> Iterator[Client]:
    """A client of the server, for the expected results."""
    with Client(endpoints=server.endpoints) as client:
        yield client
