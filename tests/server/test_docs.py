"""The commands and examples in docs/, run in order, with their output compared to the page."""

import json
import re
from collections.abc import Iterator

import pytest

from tests.conftest import ROOT
from tests.doc_pages import (
    RUN,
    TESTED_ELSEWHERE,
    Block,
    Checkout,
    blocks,
    is_tested_elsewhere,
    matches_output,
    missing_tools,
)
from torchserve_models.client import Client

PAGES = sorted((ROOT / "docs").glob("*.md"))
REPLACEMENT_MODELS = {"migration": {"tinyvit": "resnet-50"}}
"""Models of a page whose weights need the hub, and the archive that is registered under their name here."""


@pytest.fixture
def checkout(server, tmp_path) -> Iterator[Checkout]:
    """Yield a checkout for the server; afterwards, restore the server's models with one worker each."""
    before = {path.name for path in server.store.iterdir()}
    folder = tmp_path / "checkout"
    folder.mkdir()
    yield Checkout(folder, server)
    with Client(endpoints=server.endpoints) as connection:
        for model in connection.list_models():
            if model.name in server.models:
                if len(connection.describe(model.name).workers) != 1:
                    connection.scale(model.name, 1)
            else:
                connection.unregister(model.name)
    for path in server.store.iterdir():
        if path.name not in before:
            path.unlink()


@pytest.fixture(scope="module")
def proxy(server) -> Iterator[dict[str, str]]:
    """Run nginx and the gateway; yield the actual address of each documented address."""
    from torchserve_models.gateway.nginx.config import NginxConfig, NginxError
    from torchserve_models.gateway.nginx.executable import find_nginx
    from torchserve_models.gateway.settings import GatewaySettings
    from torchserve_models.gateway.supervision.edge_supervisor import EdgeSupervisor

    try:
        find_nginx()
    except NginxError as error:
        pytest.skip(str(error))
    free = dict.fromkeys(("http", "grpc", "gateway"), "127.0.0.1:0")
    with EdgeSupervisor(NginxConfig(**free, endpoints=server.endpoints), GatewaySettings()) as edge:
        yield {"127.0.0.1:8000": edge.config.http, "127.0.0.1:7000": edge.config.grpc}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_output_of_code_blocks_matches_the_page(page, checkout, subtests, request):
    for name, replacement in REPLACEMENT_MODELS.get(page.stem, {}).items():
        with Client(endpoints=checkout.server.endpoints) as connection:
            connection.register(f"{replacement}.mar", model_name=name)
    for block in blocks(page):
        if block.file:
            checkout.write(block)
        elif block.kind in RUN and not is_tested_elsewhere(block):
            with subtests.test(block.location):
                if lacking := missing_tools(block):
                    pytest.skip(f"{', '.join(lacking)} is not installed")
                if re.search(r":[78]000\b", block.text):
                    checkout.add_addresses(request.getfixturevalue("proxy"))
                output = checkout.run(block)
                assert block.output is None or matches_output(block.output, output), (
                    f"{block.location} prints:\n{output}"
                )


def test_curl_commands_within_sentences_work(checkout, request):
    """Commands in tables and sentences use a photo and a report in the working directory."""
    samples = checkout.folder / ".run" / "samples"
    (samples / "image.jpg").rename(checkout.folder / "photo.jpg")
    (samples / "report.txt").rename(checkout.folder / "report.txt")
    text = "\n".join(page.read_text() for page in [*PAGES, ROOT / "README.md"])
    commands = re.findall(r"`(curl [^`\n]*(?:localhost|127\.0\.0\.1):80[08]0/[^`\n]*)`", text)
    assert len(commands) >= 4
    for command in dict.fromkeys(commands):
        if ":8000" in command:
            checkout.add_addresses(request.getfixturevalue("proxy"))
        block = Block(ROOT / "docs", 0, "bash", (), command)
        if missing_tools(block):
            pytest.skip("curl is not installed")
        assert isinstance(json.loads(checkout.run(block)), list), command


def test_code_blocks_skipped_here_are_run_by_other_tests():
    pages = [*PAGES, ROOT / "README.md"]
    documented = "\n".join(block.text for page in pages for block in blocks(page) if block.kind == "bash")
    for command, test in TESTED_ELSEWHERE.items():
        if re.search(rf"^{re.escape(command)}\b", documented, re.MULTILINE):
            assert command.removeprefix("scripts/") in (ROOT / test).read_text(), command


def test_links_have_targets():
    """Checks links to files of the repository and to headings of pages."""
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
    """Return the anchors that GitHub creates for headings."""
    headings = re.findall(r"^#+ (.+)$", re.sub(r"^```.*?^```$", "", text, flags=re.M | re.S), re.MULTILINE)
    plain = (re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings)
    return {heading.replace(" ", "-") for heading in plain}
