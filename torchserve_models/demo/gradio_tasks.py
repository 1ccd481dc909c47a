"""The tabs of the two tasks."""

import json
import time
from pathlib import Path
from typing import Any

import gradio as gr

from torchserve_models.client import TorchServeError
from torchserve_models.demo import examples, markup
from torchserve_models.demo.backend import Backend, said
from torchserve_models.demo.catalog import IMAGES, TEXTS

LABELS = 5
CAMERA = {"video": {"facingMode": "environment"}}  # of a phone, the one at its back
KNOWN = "The starter weights know drawings like these, and nothing else."
TOLD = "The starter weights know short reports like these, and nothing else."
# Gradio leaves thumbnails without a name for those who cannot see, and makes them anew when it likes.
NAME_EXAMPLES = """() => {
  const names = %s;
  const label = () => document.querySelectorAll("#image-examples .gallery-item").forEach((item, index) => {
    item.ariaLabel ||= names[index];
  });
  new MutationObserver(label).observe(document.body, {childList: true, subtree: true});
  label();
}"""


def as_it_came(_: Any, payload: Any) -> str | None:
    """The path of the file that was sent: the server decodes it, and says what is wrong with it."""
    return payload.path if payload else None


# Of the class, as Gradio makes a component anew for a visitor; of a subclass it would write a .pyi beside this file.
gr.Image.preprocess = as_it_came


def image_tab(page: gr.Blocks, backend: Backend, folder: Path) -> None:
    shown = examples.images(folder)
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
                [[str(path)] for _, path in shown],
                [image],
                label=f"Examples. {KNOWN}",
                cache_examples=False,
                elem_id="image-examples",
            )
            button = gr.Button("Classify", variant="primary")
        with gr.Column():
            problem = gr.HTML(visible=False)
            labels = gr.HTML(elem_id="labels")

    def classify(model: str | None, path: str | None) -> tuple[Any, Any]:
        if not path:
            return told("Choose an image first."), ""
        start = time.monotonic()
        try:
            found = backend.classify(model or "", Path(path).read_bytes(), LABELS)
        except TorchServeError as error:
            return failed(error), ""
        return gr.HTML(visible=False), markup.bars(found) + markup.took(time.monotonic() - start)

    inputs, outputs = [model, image], [problem, labels]
    gr.on([button.click, image.change, model.input], classify, inputs, outputs, api_visibility="private")
    page.load(lambda: choices(backend, IMAGES), None, [model, problem], api_visibility="private")
    page.load(None, js=NAME_EXAMPLES % json.dumps([label for label, _ in shown]))


def text_tab(page: gr.Blocks, backend: Backend) -> None:
    with gr.Row():
        with gr.Column():
            model = gr.Radio(label="Model", choices=[], elem_id="text-model")
            text = gr.Textbox(label="Text", lines=8, max_lines=16, elem_id="text")
            gr.Examples(
                [[each] for each in examples.reports()],
                [text],
                label=f"Examples. {TOLD}",
                cache_examples=False,
            )
            # One below the other: side by side, labels of different lengths would put them at different heights.
            longest = gr.Slider(1, 256, 60, step=1, label="Most tokens", elem_id="longest")
            shortest = gr.Slider(0, 256, 0, step=1, label="Fewest tokens", elem_id="shortest")
            beams = gr.Slider(1, 8, 1, step=1, label="Beams", elem_id="beams")
            button = gr.Button("Summarize", variant="primary")
        with gr.Column():
            problem = gr.HTML(visible=False)
            summary = gr.Textbox(label="Summary", lines=5, interactive=False, elem_id="summary")
            took = gr.HTML(elem_id="took")

    def summarize(
        model: str | None, text: str, longest: int, shortest: int, beams: int
    ) -> tuple[Any, str, str]:
        start = time.monotonic()
        try:
            answer, truncated = backend.summarize(
                model or "", text, max_new_tokens=longest, min_new_tokens=shortest, num_beams=beams
            )
        except TorchServeError as error:
            return failed(error), "", ""
        problem = told(markup.CUT) if truncated else gr.HTML(visible=False)
        return problem, answer, markup.took(time.monotonic() - start)

    def controls(model: str | None) -> list[Any]:
        """The sliders with the model's own limits and defaults."""
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

    sliders = [longest, shortest, beams]
    outputs = [problem, summary, took]
    button.click(summarize, [model, text, *sliders], outputs, api_visibility="private")
    model.change(controls, [model], sliders, api_visibility="private")
    page.load(lambda: choices(backend, TEXTS), None, [model, problem], api_visibility="private")


def choices(backend: Backend, task: str) -> tuple[Any, Any]:
    """The models of a task, the first of them chosen; or why there are none."""
    try:
        names = backend.models(task)
    except TorchServeError as error:
        return gr.skip(), failed(error)
    if not names:
        return gr.skip(), told(f"The server has no model for {task}.")
    return gr.Radio(choices=names, value=names[0]), gr.HTML(visible=False)


def failed(error: TorchServeError) -> Any:
    return gr.HTML(markup.alert(said(error)), visible=True)


def told(text: str) -> Any:
    return gr.HTML(markup.note(text), visible=True)
