"""The Streamlit page for images and texts. Streamlit runs this script on each visit and each change."""

import json
import sys
import tempfile
import time
from pathlib import Path

import streamlit as st

from torchserve_models.client import Endpoints, TorchServeError
from torchserve_models.demo import examples, markup
from torchserve_models.demo.backend import Backend, error_text
from torchserve_models.demo.catalog import IMAGES, TEXTS, CatalogEntry
from torchserve_models.demo.preview import jpeg_preview

TITLE = "torchserve-models"
LABELS = 5
STYLE = f"<style>{markup.CSS}.stMainBlockContainer {{ padding-top: 3rem; }}</style>"
CUSTOM_TEXT = "your own text"


@st.cache_resource
def connect(addresses: str) -> Backend:
    """Return the backend. `addresses` are the Endpoints as a JSON object."""
    return Backend(Endpoints(**json.loads(addresses)))


@st.cache_resource
def example_images() -> dict[str, bytes]:
    """Return the example images by label."""
    with tempfile.TemporaryDirectory() as folder:
        return {label: path.read_bytes() for label, path in examples.images(Path(folder))}


def main() -> None:
    st.set_page_config(page_title=TITLE, layout="wide")
    backend = connect(sys.argv[1])
    st.title(TITLE)
    image, text = st.tabs(["Image", "Text"])
    with image:
        image_page(backend)
    with text:
        text_page(backend)


@st.fragment
def image_page(backend: Backend) -> None:
    """Show the inputs, the image and its labels in three columns."""
    input_column, image_column, label_column = st.columns([4, 4, 4], gap="large")
    with input_column:
        model = choose_model(backend, IMAGES)
        if model is None:
            return
        description, content = image_input()
    with image_column:
        jpeg = jpeg_preview(content)
        st.html(
            STYLE + (markup.image(jpeg, description) if jpeg else markup.note(f"No preview: {description}"))
        )
    with label_column:
        try:
            start = time.monotonic()
            with st.spinner("Classifying"):
                labels = backend.classify(model, content, LABELS)
            st.html(STYLE + markup.bars(labels) + markup.response_time(time.monotonic() - start))
        except TorchServeError as error:
            st.html(STYLE + markup.alert(error_text(error)))


def image_input() -> tuple[str, bytes]:
    """Return the description and content of the image: an uploaded file, a photo, or an example."""
    upload = st.file_uploader("An image", key="file")
    if st.toggle("Use the camera"):
        upload = st.camera_input("A photo") or upload
    if upload:
        return upload.name, upload.getvalue()
    label = st.radio(
        "Or an example (the starter weights only work for drawings like these)",
        list(example_images()),
        horizontal=True,
    )
    return f"a drawing: {label}", example_images()[label]


@st.fragment
def text_page(backend: Backend) -> None:
    """Show the text on the left, and its summary on the right."""
    text_column, summary_column = st.columns(2, gap="large")
    with text_column:
        model = choose_model(backend, TEXTS)
        if model is None:
            return
        try:
            entry = backend.entry(model)
        except TorchServeError as error:
            st.html(STYLE + markup.alert(error_text(error)))
            return
        text = text_input()
        parameters = generation_parameters(entry)
        pressed = st.button("Summarize", type="primary")
    with summary_column:
        if pressed:
            show_summary(backend, model, text, parameters)
        else:
            st.html(STYLE + markup.note("The summary will appear here."))


def text_input() -> str:
    reports = {f"report {number}": report for number, report in enumerate(examples.reports(), 1)}
    name = st.radio(
        "Example (the starter weights only work for short reports like these)",
        [*reports, CUSTOM_TEXT],
        horizontal=True,
    )
    return st.text_area("Text", reports.get(name, ""), height=200, key=f"text of {name}")


def generation_parameters(entry: CatalogEntry) -> dict[str, int]:
    labels = {"max_new_tokens": "Max. tokens", "min_new_tokens": "Min. tokens", "num_beams": "Beams"}
    parameters = {}
    for (parameter, label), column in zip(labels.items(), st.columns(len(labels)), strict=True):
        low, high = entry.limits(parameter)
        key = f"{parameter} of {entry.name}"  # the default depends on the model
        parameters[parameter] = column.number_input(label, low, high, entry.default(parameter), key=key)
    return parameters


def show_summary(backend: Backend, model: str, text: str, parameters: dict[str, int]) -> None:
    start = time.monotonic()
    try:
        with st.spinner("Summarizing"):
            summary, truncated = backend.summarize(model, text, **parameters)
    except TorchServeError as error:
        st.html(STYLE + markup.alert(error_text(error)))
        return
    st.html(STYLE + markup.answer(summary) + markup.response_time(time.monotonic() - start))
    if truncated:
        st.html(STYLE + markup.note(markup.TRUNCATED))


def choose_model(backend: Backend, task: str) -> str | None:
    """Return the selected model. If the server has no model, show the reason and return None."""
    try:
        names = backend.models(task)
    except TorchServeError as error:
        st.html(STYLE + markup.alert(error_text(error)))
        return None
    if not names:
        st.html(STYLE + markup.note(f"The server has no model for {task}."))
        return None
    return st.radio("Model", names, horizontal=True, key=task)


main()
