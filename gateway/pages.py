"""The API's documentation for programs (/openapi.json) and for people (/docs, by Swagger UI, without a network)."""

from collections.abc import Awaitable, Callable, Sequence
from importlib.metadata import distribution
from pathlib import Path

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from gateway.described import Described
from gateway.openapi import document
from gateway.settings import Settings

# Its files alone are wanted: importing the package would bring Flask.
SWAGGER_UI = Path(str(distribution("flask-swagger-ui").locate_file("flask_swagger_ui/dist")))
ASSETS = {
    "swagger-ui.css": "text/css",
    "swagger-ui-bundle.js": "text/javascript",
    "favicon-32x32.png": "image/png",
}
# Addresses are relative, so that the page works under any prefix that a proxy gives it.
PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>API</title>
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
# No script inside the page, so that a proxy may forbid those; no validator, which would be another site's; no deep
# links, which put a link into each button. Swagger UI leaves its fields without a name for those who cannot see.
START = """SwaggerUIBundle({
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
STYLE = """body { margin: 0; }
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
OWN = {"page.js": ("text/javascript", START), "page.css": ("text/css", STYLE)}


def routes(
    models: Callable[[], Awaitable[Sequence[Described]]], settings: Settings | None = None
) -> list[Route]:
    """`models` says what is served; what it raises is the application's to answer."""

    async def openapi(_: Request) -> Response:
        return JSONResponse(document(await models(), settings=settings))

    async def docs(_: Request) -> Response:
        return HTMLResponse(PAGE)

    async def asset(request: Request) -> Response:
        name = request.path_params["name"]
        if name in OWN:
            media_type, text = OWN[name]
            return Response(text, media_type=media_type)
        if name not in ASSETS:
            raise HTTPException(404)
        return FileResponse(SWAGGER_UI / name, media_type=ASSETS[name])

    async def mlserver_docs(_: Request) -> Response:
        return RedirectResponse("../docs")  # relative: only the client knows the address that it asked

    async def mlserver_model_docs(_: Request) -> Response:
        return RedirectResponse("../../../docs")

    return [
        Route("/openapi.json", openapi),
        Route("/docs", docs),
        Route("/docs/{name}", asset),
        Route("/v2/docs", mlserver_docs),
        Route("/v2/models/{model}/docs", mlserver_model_docs),
    ]
