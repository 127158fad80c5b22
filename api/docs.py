"""`GET /docs`: the calls, to read and to try out, without any host but this one.

FastAPI's own page loads Swagger UI from a content delivery network, which networks without internet
do not reach. The package fastapi-offline brings the same files along; only these are used of it.
"""

from fastapi import FastAPI
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import HTMLResponse
from fastapi.staticfiles import StaticFiles

# Swagger UI starts from a script in the page and draws with images and styles inside it.
PAGE_POLICY = (
    "default-src 'none'; connect-src 'self'; img-src 'self' data:; "
    "script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


def install(app: FastAPI) -> None:
    """Serve the documentation of `app` and the files it is made of."""
    assets = StaticFiles(packages=[("fastapi_offline", "static")])
    app.mount("/docs/assets", assets, name="docs-assets")

    @app.get("/docs", include_in_schema=False)
    def docs() -> HTMLResponse:
        # Relative, so that they also hold behind a proxy that serves under a path of its own.
        page = get_swagger_ui_html(
            openapi_url="openapi.json",
            title=app.title,
            swagger_js_url="docs/assets/swagger-ui-bundle.js",
            swagger_css_url="docs/assets/swagger-ui.css",
            swagger_favicon_url="docs/assets/favicon.png",
            # By default Swagger UI would send the document to a public validator.
            swagger_ui_parameters={"validatorUrl": None},
        )
        page.headers["Content-Security-Policy"] = PAGE_POLICY
        return page
