"""Every command and every example of the pages in docs/, run in order as they stand; what they print is compared."""

import json
import re
import socket
from collections.abc import Iterator

import pytest

from tests.conftest import ROOT
from tests.doc_pages import ELSEWHERE, RUN, Block, Checkout, blocks, elsewhere, missing_tools, prints
from torchserve_models.client import Client

PAGES = sorted((ROOT / "docs").glob("*.md"))
STAND_INS = {"coming-from": {"tinyvit": "resnet-50"}}
"""Models of a page whose weights need the hub, and the archive that is registered under their name here."""


@pytest.fixture
def checkout(server, tmp_path) -> Iterator[Checkout]:
    """The server is left as it was: its models with one worker each, and no others."""
    before = {path.name for path in server.store.iterdir()}
    folder = tmp_path / "checkout"
    folder.mkdir()
    yield Checkout(folder, server)
    with Client(endpoints=server.endpoints) as connection:
        for model in connection.list_models():
            if model.name in server.models:
                connection.scale(model.name, 1)
            else:
                connection.unregister(model.name)
    for path in server.store.iterdir():
        if path.name not in before:
            path.unlink()


@pytest.fixture(scope="module")
def proxy(server) -> Iterator[dict[str, str]]:
    """nginx and the gateway in front of the server: the documented addresses, and where they are here."""
    from torchserve_models.gateway.front import Running
    from torchserve_models.gateway.nginx import NginxConfig, NginxError, program
    from torchserve_models.gateway.settings import Settings

    try:
        program()
    except NginxError as error:
        pytest.skip(str(error))
    http, grpc = (f"127.0.0.1:{free_port()}" for _ in range(2))
    front = NginxConfig(http=http, grpc=grpc, gateway="127.0.0.1:0", endpoints=server.endpoints)
    with Running(front, Settings()):
        yield {"127.0.0.1:8000": http, "127.0.0.1:7000": grpc}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page(page, checkout, subtests, request):
    for name, ours in STAND_INS.get(page.stem, {}).items():
        with Client(endpoints=checkout.server.endpoints) as connection:
            connection.register(f"{ours}.mar", model_name=name)
    for block in blocks(page):
        if block.file:
            checkout.write(block)
        elif block.kind in RUN and not elsewhere(block):
            with subtests.test(block.place):
                if lacking := missing_tools(block):
                    pytest.skip(f"{', '.join(lacking)} is not installed")
                if re.search(r":[78]000\b", block.text):
                    checkout.leads(request.getfixturevalue("proxy"))
                output = checkout.run(block)
                assert block.output is None or prints(block.output, output), (
                    f"{block.place} prints:\n{output}"
                )


def test_curl_within_the_text(checkout, request):
    """Commands in tables and sentences: of a photo and a report in the reader's folder."""
    samples = checkout.folder / ".run" / "samples"
    (samples / "image.jpg").rename(checkout.folder / "photo.jpg")
    (samples / "report.txt").rename(checkout.folder / "report.txt")
    said = "\n".join(page.read_text() for page in [*PAGES, ROOT / "README.md"])
    commands = re.findall(r"`(curl [^`\n]*(?:localhost|127\.0\.0\.1):80[08]0/[^`\n]*)`", said)
    assert len(commands) >= 4
    for command in dict.fromkeys(commands):
        if ":8000" in command:
            checkout.leads(request.getfixturevalue("proxy"))
        block = Block(ROOT / "docs", 0, "bash", (), command)
        if missing_tools(block):
            pytest.skip("curl is not installed")
        assert isinstance(json.loads(checkout.run(block)), list), command


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])


def test_what_is_run_elsewhere_is():
    pages = [*PAGES, ROOT / "README.md"]
    said = "\n".join(block.text for page in pages for block in blocks(page) if block.kind == "bash")
    for command, test in ELSEWHERE.items():
        if re.search(rf"^{re.escape(command)}\b", said, re.MULTILINE):
            assert command.removeprefix("scripts/") in (ROOT / test).read_text(), command


def test_links_lead_somewhere():
    """To files of the repository, and to the headings of pages."""
    for page in [*PAGES, ROOT / "README.md"]:
        for target in re.findall(r"\]\(([^)#\s]*)(?:#([^)\s]+))?\)", page.read_text()):
            name, anchor = target
            if name.startswith(("http:", "https:")):
                continue
            path = page.parent / name if name else page
            assert path.exists(), f"{page.name}: {name}"
            if anchor:
                assert anchor in anchors(path.read_text()), f"{page.name}: {name}#{anchor}"


def anchors(text: str) -> set[str]:
    """As GitHub makes them of headings."""
    headings = re.findall(r"^#+ (.+)$", re.sub(r"^```.*?^```$", "", text, flags=re.M | re.S), re.MULTILINE)
    plain = (re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings)
    return {heading.replace(" ", "-") for heading in plain}
