"""The tabs for image classification and summarization."""

import json
import time
from pathlib import Path
from typing import Any

import gradio as gr

from torchserve_models.client import TorchServeError
from torchserve_models.demo import examples, markup
from torchserve_models.demo.backend import Backend, error_text
from torchserve_models.demo.catalog import IMAGES, TEXTS

LABELS = 5
CAMERA = {"video": {"facingMode": "environment"}}  # the back camera of a phone
IMAGE_HINT = "The starter weights only work for drawings like these."
TEXT_HINT = "The starter weights only work for short reports like these."
# Gradio's thumbnails have no accessible names, and it recreates them at any time.
NAME_EXAMPLES = """() => {
  const names = %s;
  const label = () => document.querySelectorAll("#image-examples .gallery-item").forEach((item, index) => {
    item.ariaLabel ||= names[index];
  });
  new MutationObserver(label).observe(document.body, {childList: true, subtree: true});
  label();
}"""


def uploaded_path(_: Any, payload: Any) -> str | None:
    """Return the path of the uploaded file. Gradio must not decode it: the server decodes it and reports errors."""
    return payload.path if payload else None


# Replaced in the class itself: Gradio creates new components per visitor, and writes .pyi files for subclasses.
gr.Image.preprocess = uploaded_path


def image_tab(page: gr.Blocks, backend: Backend, folder: Path) -> None:
    image_examples = examples.images(folder)
    with gr.Row():
        with gr.Column():
            model = gr.Radio(label="Model", choices=[], elem_id="image-model")
            image = gr.Image(
                label="Image",
                sources=["upload", "webcam", "clipboard"],
                height=320,
                alt_text="the image",
                webcam_options=gr.WebcamOptions(mirror=False, constraints=CAMERA),
                elem_id="image",
            )
            gr.Examples(
                [[str(path)] for _, path in image_examples],
                [image],
                label=f"Examples. {IMAGE_HINT}",
                cache_examples=False,
                elem_id="image-examples",
            )
            button = gr.Button("Classify", variant="primary")
        with gr.Column():
            problem = gr.HTML(visible=False)
            labels = gr.HTML(elem_id="labels")

    def classify(model: str | None, path: str | None) -> tuple[Any, Any]:
        if not path:
            return notice("Choose an image first."), ""
        start = time.monotonic()
        try:
            results = backend.classify(model or "", Path(path).read_bytes(), LABELS)
        except TorchServeError as error:
            return error_alert(error), ""
        return gr.HTML(visible=False), markup.bars(results) + markup.response_time(time.monotonic() - start)

    inputs, outputs = [model, image], [problem, labels]
    gr.on([button.click, image.change, model.input], classify, inputs, outputs, api_visibility="private")
    page.load(lambda: choices(backend, IMAGES), None, [model, problem], api_visibility="private")
    page.load(None, js=NAME_EXAMPLES % json.dumps([label for label, _ in image_examples]))


def text_tab(page: gr.Blocks, backend: Backend) -> None:
    with gr.Row():
        with gr.Column():
            model = gr.Radio(label="Model", choices=[], elem_id="text-model")
            text = gr.Textbox(label="Text", lines=8, max_lines=16, elem_id="text")
            gr.Examples(
                [[report] for report in examples.reports()],
                [text],
                label=f"Examples. {TEXT_HINT}",
                cache_examples=False,
            )
            # In one column: side by side, labels of different lengths would misalign the sliders.
            max_tokens = gr.Slider(1, 256, 60, step=1, label="Max. tokens", elem_id="max-tokens")
            min_tokens = gr.Slider(0, 256, 0, step=1, label="Min. tokens", elem_id="min-tokens")
            beams = gr.Slider(1, 8, 1, step=1, label="Beams", elem_id="beams")
            button = gr.Button("Summarize", variant="primary")
        with gr.Column():
            problem = gr.HTML(visible=False)
            summary = gr.Textbox(label="Summary", lines=5, interactive=False, elem_id="summary")
            response_time = gr.HTML(elem_id="response-time")

    def summarize(
        model: str | None, text: str, max_tokens: int, min_tokens: int, beams: int
    ) -> tuple[Any, str, str]:
        start = time.monotonic()
        try:
            answer, truncated = backend.summarize(
                model or "", text, max_new_tokens=max_tokens, min_new_tokens=min_tokens, num_beams=beams
            )
        except TorchServeError as error:
            return error_alert(error), "", ""
        problem = notice(markup.TRUNCATED) if truncated else gr.HTML(visible=False)
        return problem, answer, markup.response_time(time.monotonic() - start)

    def controls(model: str | None) -> list[Any]:
        """Return the sliders with the model's limits and defaults."""
        names = ("max_new_tokens", "min_new_tokens", "num_beams")
        try:
            entry = backend.entry(model) if model else None
        except TorchServeError:
            entry = None
        if entry is None:
            return [gr.skip()] * len(names)
        limits = [entry.limits(name) for name in names]
        defaults = [entry.default(name) for name in names]
        return [gr.Slider(low, high, value) for (low, high), value in zip(limits, defaults, strict=True)]

    sliders = [max_tokens, min_tokens, beams]
    outputs = [problem, summary, response_time]
    button.click(summarize, [model, text, *sliders], outputs, api_visibility="private")
    model.change(controls, [model], sliders, api_visibility="private")
    page.load(lambda: choices(backend, TEXTS), None, [model, problem], api_visibility="private")


def choices(backend: Backend, task: str) -> tuple[Any, Any]:
    """Return radio buttons for the models of a task, and a message if the server has none."""
    try:
        names = backend.models(task)
    except TorchServeError as error:
        return gr.skip(), error_alert(error)
    if not names:
        return gr.skip(), notice(f"The server has no model for {task}.")
    return gr.Radio(choices=names, value=names[0]), gr.HTML(visible=False)


def error_alert(error: TorchServeError) -> Any:
    return gr.HTML(markup.alert(error_text(error)), visible=True)


def notice(text: str) -> Any:
    return gr.HTML(markup.note(text), visible=True)
