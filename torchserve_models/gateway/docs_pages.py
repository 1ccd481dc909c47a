"""The root page (/), the OpenAPI document (/openapi.json) and the documentation page with Swagger UI (/docs).

The pages load nothing from other sites.
"""

from collections.abc import Awaitable, Callable, Sequence
from html import escape
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from torchserve_models.gateway.openapi.document import build_document
from torchserve_models.gateway.responses import UnicodeJSONResponse
from torchserve_models.gateway.settings import GatewaySettings
from torchserve_models.gateway.upstream.model_descriptions import ModelDescription

# Only the package's files are used: importing it requires Flask.
SWAGGER_UI = Path(str(distribution("flask-swagger-ui").locate_file("flask_swagger_ui/dist")))
ASSETS = {
    "swagger-ui.css": "text/css",
    "swagger-ui-bundle.js": "text/javascript",
    "favicon-32x32.png": "image/png",
}
NAME, DESCRIPTION = "torchserve-models", "Image classification and summarization on TorchServe."
# Links are relative, so that the pages work behind a proxy with any path prefix.
ROOT_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{name}</title>
<link rel="icon" type="image/png" href="docs/favicon-32x32.png">
<link rel="stylesheet" href="docs/root.css">
</head>
<body>
<main>
<h1>{name}</h1>
<p>{description}</p>
<p>Status: {status}</p>
<ul>
<li><a href="docs">API documentation</a>, where you can try requests</li>
<li><a href="openapi.json">OpenAPI document</a></li>
<li><a href="readyz">Readiness</a></li>
</ul>
</main>
</body>
</html>
"""
DOCS_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>API</title>
{base}
<link rel="icon" type="image/png" href="docs/favicon-32x32.png">
<link rel="stylesheet" href="docs/swagger-ui.css">
<link rel="stylesheet" href="docs/page.css">
</head>
<body>
<main id="swagger-ui"></main>
<script src="docs/swagger-ui-bundle.js"></script>
<script src="docs/page.js"></script>
</body>
</html>
"""
# The script is a file, so that a proxy may forbid inline scripts. There is no validator, which is another site,
# and there are no deep links, which put a link into each button. Swagger UI's fields have no accessible names.
PAGE_SCRIPT = """SwaggerUIBundle({
  url: "openapi.json",
  dom_id: "#swagger-ui",
  docExpansion: "list",
  defaultModelsExpandDepth: 0,
  validatorUrl: null,
});
const nameFields = () => {
  for (const field of document.querySelectorAll("select, textarea, input")) {
    if (field.ariaLabel || field.labels?.length) continue;
    const row = field.closest("tr, .opblock-section-request-body, .response");
    const name = row?.querySelector(".parameter__name, .opblock-title, h4");
    field.ariaLabel = name?.textContent.trim() || "value";
  }
  for (const box of document.querySelectorAll("pre, .table-container, .highlight-code")) box.tabIndex = 0;
};
new MutationObserver(nameFields).observe(document.getElementById("swagger-ui"), {childList: true, subtree: true});
"""
PAGE_STYLE = """body { margin: 0; }
.swagger-ui .opblock.opblock-post .opblock-summary-method { background: #0b6b3f; }
.swagger-ui .opblock.opblock-get .opblock-summary-method { background: #0b5cad; }
.swagger-ui .info .title small { background: #555; }
.swagger-ui .info .title small.version-stamp { background: #3f6a00; }
.swagger-ui .info .title small pre { color: #fff; }
.swagger-ui .info .url, .swagger-ui a.nostyle.link, .swagger-ui .info a, .swagger-ui .info .link { color: #0b5cad; }
.swagger-ui .parameter__name.required::after, .swagger-ui .parameter__name.required span { color: #b00000; }
.swagger-ui .btn.try-out__btn.cancel, .swagger-ui .btn.cancel { color: #b00000; border-color: #b00000; }
.swagger-ui .btn.execute { background: #0b5cad; border-color: #0b5cad; }
.swagger-ui .parameter__in, .swagger-ui .prop-format { color: #555; }
.swagger-ui .opblock-body, .swagger-ui .table-container, .swagger-ui .responses-inner { overflow-x: auto; }
.swagger-ui .opblock-summary-path { overflow-wrap: anywhere; }
.swagger-ui .download-contents { background: #444 !important; }
.swagger-ui .microlight { background: #111 !important; }
.swagger-ui .response-col_links { display: none; }
"""
ROOT_STYLE = """body { font-family: system-ui, sans-serif; line-height: 1.5; max-width: 40rem; margin: 3rem auto;
  padding: 0 1rem; }
"""
GENERATED_ASSETS = {
    "page.js": ("text/javascript", PAGE_SCRIPT),
    "page.css": ("text/css", PAGE_STYLE),
    "root.css": ("text/css", ROOT_STYLE),
}


def routes(
    models: Callable[[], Awaitable[Sequence[ModelDescription]]],
    problem: Callable[[], str | None],
    settings: GatewaySettings | None = None,
) -> list[Route]:
    """Return the routes.

    Args:
        models: Returns the registered models. The application handles its exceptions.
        problem: Returns why the server is not ready; None if it is ready.
        settings: Assigns models to the compatibility routes.
    """

    async def root(request: Request) -> Response:
        reason = problem()
        headers = {"Vary": "Accept"}
        if prefers_html(request.headers.get("accept", "")):
            status = "ready" if reason is None else f"not ready: {escape(reason)}"
            page = ROOT_PAGE.format(name=NAME, description=DESCRIPTION, status=status)
            return HTMLResponse(page, headers=headers)
        body: dict[str, Any] = {"name": NAME, "description": DESCRIPTION, "ready": reason is None}
        body |= {"reason": reason} if reason else {}
        body |= {"docs": "/docs", "openapi": "/openapi.json", "metadata": "/v2", "readiness": "/readyz"}
        return UnicodeJSONResponse(body, headers=headers)

    async def openapi(_: Request) -> Response:
        return JSONResponse(build_document(await models(), settings=settings))

    async def docs(request: Request) -> Response:
        base = '<base href="../">' if request.url.path.endswith("/") else ""
        return HTMLResponse(DOCS_PAGE.format(base=base))

    async def asset(request: Request) -> Response:
        name = request.path_params["name"]
        if name in GENERATED_ASSETS:
            media_type, text = GENERATED_ASSETS[name]
            return Response(text, media_type=media_type)
        if name not in ASSETS:
            raise HTTPException(404)
        return FileResponse(SWAGGER_UI / name, media_type=ASSETS[name])

    async def mlserver_docs(_: Request) -> Response:
        return RedirectResponse("../docs")  # relative, because only the client knows its URL of the server

    async def mlserver_model_docs(_: Request) -> Response:
        return RedirectResponse("../../../docs")

    return [
        Route("/", root),
        Route("/openapi.json", openapi),
        Route("/docs/", docs),
        Route("/docs", docs),
        Route("/docs/{name}", asset),
        Route("/v2/docs", mlserver_docs),
        Route("/v2/models/{model}/docs", mlserver_model_docs),
    ]


def prefers_html(accept: str) -> bool:
    """Return whether an Accept header lists text/html with at least the weight of JSON. `*/*` is not enough."""
    quality = {"text/html": 0.0, "application/json": 0.0}
    for entry in accept.lower().split(","):
        media_type, *options = (part.strip() for part in entry.split(";"))
        weight = next((option[2:] for option in options if option.startswith("q=")), "1")
        try:
            quality[media_type] = float(weight)
        except ValueError:
            quality[media_type] = 0.0
    return quality["text/html"] > 0 and quality["text/html"] >= quality["application/json"]
