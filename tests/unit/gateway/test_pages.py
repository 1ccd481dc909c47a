"""The API's pages: a document, and a page whose parts are all here."""

import re

import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from gateway import pages
from gateway.described import Described


@pytest.fixture
def client():
    async def models():
        return [Described("net", ("1",), "1")]

    return TestClient(Starlette(routes=pages.routes(models)))


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
    assert "openapi.json" in client.get("/docs/page.js").text


@pytest.mark.parametrize("name", ["swagger-ui.js.map", "LICENSE", "..%2F__init__.py", "VERSION"])
def test_nothing_else_is(client, name):
    assert client.get(f"/docs/{name}").status_code == 404


@pytest.mark.parametrize("path", ["/v2/docs", "/v2/models/net/docs"])
def test_mlservers_addresses_lead_to_the_page(client, path):
    """By a relative address, which is right behind any proxy."""
    assert client.get(path, follow_redirects=False).headers["location"].startswith("../")
    assert client.get(path).url.path == "/docs"
