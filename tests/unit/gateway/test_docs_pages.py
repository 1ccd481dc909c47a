"""The root page, the OpenAPI document and the documentation page."""

import re

import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from torchserve_models.gateway import docs_pages
from torchserve_models.gateway.upstream.model_descriptions import ModelDescription


@pytest.fixture
def client():
    async def models():
        return [ModelDescription("net", ("1",), "1")]

    return TestClient(Starlette(routes=docs_pages.routes(models, lambda: None)), follow_redirects=False)


BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"


@pytest.mark.parametrize(
    "accept", ["*/*", "application/json", "", "application/json, text/html;q=0.5", "text/html;q=0"]
)
def test_root_route_returns_json_to_a_program(client, accept):
    response = client.get("/", headers={"accept": accept})
    assert response.headers["content-type"] == "application/json"
    assert response.headers["vary"] == "Accept"
    assert response.json()["ready"] is True
    for link in ("docs", "openapi"):
        assert client.get(response.json()[link]).status_code == 200


@pytest.mark.parametrize("accept", [BROWSER, "text/html", "application/json;q=0.5, Text/HTML ; q=0.8"])
def test_root_route_returns_a_page_to_a_browser(client, accept):
    response = client.get("/", headers={"accept": accept})
    assert response.headers["content-type"].startswith("text/html")
    assert "Status: ready" in response.text
    for address in re.findall(r'(?:src|href)="([^"]+)"', response.text):
        assert address == "readyz" or client.get(f"/{address}").status_code == 200


def test_root_page_states_why_the_server_is_not_ready():
    client = TestClient(Starlette(routes=docs_pages.routes(None, lambda: "<no worker>")))
    assert client.get("/").json()["reason"] == "<no worker>"
    assert client.get("/").status_code == 200
    assert "Status: not ready: &lt;no worker&gt;" in client.get("/", headers={"accept": "text/html"}).text


def test_openapi_document_lists_the_models(client):
    response = client.get("/openapi.json")
    assert response.headers["content-type"] == "application/json"
    assert "/predictions/net" in response.json()["paths"]


def test_all_files_of_the_page_are_served(client):
    page = client.get("/docs")
    assert page.headers["content-type"].startswith("text/html")
    links = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert len(links) == 5
    for address in links:
        assert "//" not in address
        response = client.get(f"/{address}")
        assert response.status_code == 200
        assert response.content
    # With a trailing slash, relative links need another base.
    assert client.get("/docs/").text == page.text.replace("</title>\n", '</title>\n<base href="../">', 1)
    assert "openapi.json" in client.get("/docs/page.js").text


@pytest.mark.parametrize("name", ["swagger-ui.js.map", "LICENSE", "..%2F__init__.py", "VERSION"])
def test_other_files_are_not_served(client, name):
    assert client.get(f"/docs/{name}").status_code == 404


@pytest.mark.parametrize("path", ["/v2/docs", "/v2/models/net/docs"])
def test_routes_of_mlserver_redirect_to_the_page(client, path):
    """The redirect is relative, so that it works behind any proxy."""
    assert client.get(path, follow_redirects=False).headers["location"].startswith("../")
    assert client.get(path, follow_redirects=True).url.path == "/docs"
