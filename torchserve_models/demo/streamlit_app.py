"""The Streamlit page: images and texts. Streamlit runs it anew at each visit and each change."""

import json
import sys
import tempfile
import time
from pathlib import Path

import streamlit as st

from torchserve_models.client import Endpoints, TorchServeError
from torchserve_models.demo import examples, markup
from torchserve_models.demo.backend import Backend, said
from torchserve_models.demo.catalog import IMAGES, TEXTS, Entry
from torchserve_models.demo.preview import preview

TITLE = "torchserve-models"
LABELS = 5
STYLE = f"<style>{markup.CSS}.stMainBlockContainer {{ padding-top: 3rem; }}</style>"
TYPED = "your own text"


@st.cache_resource
def connect(addresses: str) -> Backend:
    """`addresses`: Endpoints as a JSON object."""
    return Backend(Endpoints(**json.loads(addresses)))


@st.cache_resource
def drawn() -> dict[str, bytes]:
    """The example images by what they show."""
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
    """What is chosen on the left; the image and, beside it, its labels on the right."""
    asked, seen, answered = st.columns([4, 4, 4], gap="large")
    with asked:
        model = chosen(backend, IMAGES)
        if model is None:
            return
        words, content = image_input()
    with seen:
        shown = preview(content)
        st.html(STYLE + (markup.image(shown, words) if shown else markup.note(f"No preview: {words}")))
    with answered:
        try:
            start = time.monotonic()
            with st.spinner("The model looks"):
                labels = backend.classify(model, content, LABELS)
            st.html(STYLE + markup.bars(labels) + markup.took(time.monotonic() - start))
        except TorchServeError as error:
            st.html(STYLE + markup.alert(said(error)))


def image_input() -> tuple[str, bytes]:
    """The image to classify, and what it is in words: a file or a photo, else an example."""
    sent = st.file_uploader("An image", key="file")
    if st.toggle("Use the camera"):
        sent = st.camera_input("A photo") or sent
    if sent:
        return sent.name, sent.getvalue()
    name = st.radio(
        "Or an example (the starter weights know drawings like these, and nothing else)",
        list(drawn()),
        horizontal=True,
    )
    return f"a drawing: {name}", drawn()[name]


@st.fragment
def text_page(backend: Backend) -> None:
    """The text on the left, its summary on the right."""
    asked, answered = st.columns(2, gap="large")
    with asked:
        model = chosen(backend, TEXTS)
        if model is None:
            return
        try:
            entry = backend.entry(model)
        except TorchServeError as error:
            st.html(STYLE + markup.alert(said(error)))
            return
        text = text_input()
        parameters = generation_parameters(entry)
        pressed = st.button("Summarize", type="primary")
    with answered:
        if pressed:
            show_summary(backend, model, text, parameters)
        else:
            st.html(STYLE + markup.note("The summary will be here."))


def text_input() -> str:
    reports = {f"report {number}": report for number, report in enumerate(examples.reports(), 1)}
    name = st.radio(
        "Example (the starter weights know short reports like these, and nothing else)",
        [*reports, TYPED],
        horizontal=True,
    )
    return st.text_area("Text", reports.get(name, ""), height=200, key=f"text of {name}")


def generation_parameters(entry: Entry) -> dict[str, int]:
    words = {"max_new_tokens": "Most tokens", "min_new_tokens": "Fewest tokens", "num_beams": "Beams"}
    parameters = {}
    for (parameter, label), column in zip(words.items(), st.columns(len(words)), strict=True):
        low, high = entry.limits(parameter)
        key = f"{parameter} of {entry.name}"  # each model has its own default
        parameters[parameter] = column.number_input(label, low, high, entry.default(parameter), key=key)
    return parameters


def show_summary(backend: Backend, model: str, text: str, parameters: dict[str, int]) -> None:
    start = time.monotonic()
    try:
        with st.spinner("The model writes"):
            summary, truncated = backend.summarize(model, text, **parameters)
    except TorchServeError as error:
        st.html(STYLE + markup.alert(said(error)))
        return
    st.html(STYLE + markup.answer(summary) + markup.took(time.monotonic() - start))
    if truncated:
        st.html(STYLE + markup.note(markup.CUT))


def chosen(backend: Backend, task: str) -> str | None:
    """The model that is chosen, or None where there is none to choose, which is said."""
    try:
        names = backend.models(task)
    except TorchServeError as error:
        st.html(STYLE + markup.alert(said(error)))
        return None
    if not names:
        st.html(STYLE + markup.note(f"The server has no model for {task}."))
        return None
    return st.radio("Model", names, horizontal=True, key=task)


main()
