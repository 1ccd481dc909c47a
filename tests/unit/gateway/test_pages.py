"""The API's pages: a document, and a page whose parts are all here."""

import re

import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from torchserve_models.gateway import pages
from torchserve_models.gateway.descriptions import ModelDescription


@pytest.fixture
def client():
    async def models():
        return [ModelDescription("net", ("1",), "1")]

    return TestClient(Starlette(routes=pages.routes(models, lambda: None)), follow_redirects=False)


BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"


@pytest.mark.parametrize(
    "accept", ["*/*", "application/json", "", "application/json, text/html;q=0.5", "text/html;q=0"]
)
def test_a_program_learns_what_this_is(client, accept):
    """Case 19."""
    answer = client.get("/", headers={"accept": accept})
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["vary"] == "Accept"
    assert answer.json()["ready"] is True
    for link in ("docs", "openapi"):
        assert client.get(answer.json()[link]).status_code == 200


@pytest.mark.parametrize("accept", [BROWSER, "text/html", "application/json;q=0.5, Text/HTML ; q=0.8"])
def test_a_person_gets_a_page(client, accept):
    """Case 19."""
    answer = client.get("/", headers={"accept": accept})
    assert answer.headers["content-type"].startswith("text/html")
    assert "Status: ready" in answer.text
    for address in re.findall(r'(?:src|href)="([^"]+)"', answer.text):
        assert address == "readyz" or client.get(f"/{address}").status_code == 200


def test_it_says_why_it_is_not_ready():
    client = TestClient(Starlette(routes=pages.routes(None, lambda: "<no worker>")))
    assert client.get("/").json()["reason"] == "<no worker>"
    assert client.get("/").status_code == 200
    assert "Status: not ready: &lt;no worker&gt;" in client.get("/", headers={"accept": "text/html"}).text


def test_the_document(client):
    answer = client.get("/openapi.json")
    assert answer.headers["content-type"] == "application/json"
    assert "/predictions/net" in answer.json()["paths"]


def test_everything_the_page_needs_is_here(client):
    page = client.get("/docs")
    assert page.headers["content-type"].startswith("text/html")
    needed = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert len(needed) == 5
    for address in needed:
        assert "//" not in address
        answer = client.get(f"/{address}")
        assert answer.status_code == 200
        assert answer.content
    # With a slash at its own end, the page's relative addresses begin elsewhere.
    assert client.get("/docs/").text == page.text.replace("</title>\n", '</title>\n<base href="../">', 1)
    assert "openapi.json" in client.get("/docs/page.js").text


@pytest.mark.parametrize("name", ["swagger-ui.js.map", "LICENSE", "..%2F__init__.py", "VERSION"])
def test_nothing_else_is(client, name):
    assert client.get(f"/docs/{name}").status_code == 404


@pytest.mark.parametrize("path", ["/v2/docs", "/v2/models/net/docs"])
def test_mlservers_addresses_lead_to_the_page(client, path):
    """Case 18: by a relative address, which is right behind any proxy."""
    assert client.get(path, follow_redirects=False).headers["location"].startswith("../")
    assert client.get(path, follow_redirects=True).url.path == "/docs"
