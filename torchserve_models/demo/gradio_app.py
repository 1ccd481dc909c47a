"""The Gradio page with its tabs for images, texts and the server."""

from pathlib import Path

import gradio as gr
from fastapi import FastAPI

from torchserve_models.demo import gradio_server, gradio_tasks, markup
from torchserve_models.demo.backend import Backend

TITLE = "torchserve-models"
UPLOAD_TTL_S = 3600
# System fonts, so that the page does not download fonts.
FONTS = ("ui-sans-serif", "system-ui", "sans-serif")
MONOSPACE = ("ui-monospace", "monospace")


def build(backend: Backend, examples: Path, scaling: bool) -> gr.Blocks:
    with gr.Blocks(title=TITLE, analytics_enabled=False, delete_cache=(UPLOAD_TTL_S, UPLOAD_TTL_S)) as page:
        gr.Markdown(f"# {TITLE}\nImages and texts for the models of `{backend.endpoints.inference}`")
        with gr.Tabs() as tabs:
            with gr.Tab("Image"):
                gradio_tasks.image_tab(page, backend, examples)
            with gr.Tab("Text"):
                gradio_tasks.text_tab(page, backend)
            with gr.Tab(gradio_server.NAME):
                gradio_server.server_tab(tabs, backend, scaling)
    return page


def app(backend: Backend, examples: Path, scaling: bool, max_file_size: str) -> FastAPI:
    return gr.mount_gradio_app(
        FastAPI(docs_url=None, redoc_url=None, openapi_url=None),
        build(backend, examples, scaling),
        path="/",
        footer_links=[],
        run_history=False,
        max_file_size=max_file_size,
        ssr_mode=False,
        enable_monitoring=False,
        pwa=False,
        mcp_server=False,
        theme=theme(),
        css=markup.CSS + PAGE_CSS,
        allowed_paths=[str(examples)],
    )


def theme() -> gr.themes.Base:
    """Return Gradio's default theme with the color contrast that WCAG level AA requires."""
    return gr.themes.Default(primary_hue="blue", neutral_hue="zinc", font=FONTS, font_mono=MONOSPACE).set(
        color_accent="*primary_700",
        body_text_color_subdued="*neutral_600",
        body_text_color_subdued_dark="*neutral_300",
        block_label_text_color="*neutral_600",
        block_title_text_color="*neutral_700",
        input_placeholder_color="*neutral_600",
        input_placeholder_color_dark="*neutral_300",
        button_primary_background_fill="*primary_700",
        button_primary_background_fill_hover="*primary_800",
        button_primary_background_fill_dark="*primary_700",
        button_primary_background_fill_hover_dark="*primary_800",
    )


PAGE_CSS = """
footer { display: none !important; }
[data-testid="source-select"] button:not(.selected) { color: var(--body-text-color-subdued); }
.slider_input_container .max_value { min-width: 2rem; }
.tab-like-container input[type="number"] { width: 5rem !important; }
.dark { --color-accent: var(--primary-300); }
"""
