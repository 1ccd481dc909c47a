"""The tab that shows models, workers and traffic, and changes the number of workers."""

from typing import Any

import gradio as gr

from torchserve_models.client import TorchServeError
from torchserve_models.demo import markup
from torchserve_models.demo.backend import Backend, error_text

NAME = "Server"
REFRESH_INTERVAL_S = 2.0


def server_tab(tabs: gr.Tabs, backend: Backend, scaling: bool) -> None:
    overview = gr.HTML(elem_id="server")
    timer = gr.Timer(REFRESH_INTERVAL_S, active=False)

    def refresh() -> str:
        try:
            return markup.overview(backend.overview())
        except TorchServeError as error:
            return markup.alert(error_text(error))

    # Outside of Gradio's queue, whose event stream may end in "Connection errored out" on a busy machine. The page is
    # then no longer refreshed.
    quiet: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private", "queue": False}
    timer.tick(refresh, None, overview, **quiet)
    tabs.select(refresh, None, overview, **quiet)
    tabs.select(run_timer_on_this_tab, None, timer, **quiet)
    if scaling:
        scale_form(tabs, backend)
    else:
        gr.HTML(markup.note("Scaling is off: this page can be reached from other machines."))


def run_timer_on_this_tab(event: gr.SelectData) -> Any:
    """Return a timer that only runs while this tab is selected."""
    return gr.Timer(active=event.value == NAME)


def scale_form(tabs: gr.Tabs, backend: Backend) -> None:
    gr.Markdown("## Workers of a model")
    with gr.Row():
        model = gr.Radio(label="Model", choices=[], elem_id="scale-model")
        workers = gr.Number(1, label="Workers", precision=0, step=1, elem_id="workers")
    button = gr.Button("Scale")
    answer = gr.HTML(elem_id="scaled")

    def choices() -> Any:
        try:
            names = [entry.entry.name for entry in backend.overview().models if entry.is_default]
        except TorchServeError:
            return gr.skip()
        return gr.Radio(choices=names)

    def scale(model: str | None, workers: float | None) -> str:
        if not model or workers is None:
            return markup.note("Choose a model and a number of workers first.")
        try:
            return markup.note(backend.scale(model, int(workers)))
        except TorchServeError as error:
            return markup.alert(error_text(error))

    tabs.select(choices, None, model, show_progress="hidden", api_visibility="private")
    button.click(scale, [model, workers], answer, api_visibility="private")
