"""The Streamlit page: pictures and texts. Streamlit runs it anew at each visit and each change."""

import sys
import tempfile
from pathlib import Path

import streamlit as st

from client import Endpoints, ServeError
from demo import examples, markup
from demo.backend import Backend, said
from demo.catalogue import PICTURES, TEXTS

TITLE = "torchserve-models"
LABELS = 5
STYLE = f"<style>{markup.CSS}</style>"
TYPED = "your own text"


@st.cache_resource
def connect(inference: str, management: str, metrics: str) -> Backend:
    return Backend(Endpoints(inference, management, metrics))


@st.cache_resource
def drawn() -> dict[str, bytes]:
    """The example pictures by what they show."""
    with tempfile.TemporaryDirectory() as folder:
        return {label: path.read_bytes() for label, path in examples.pictures(Path(folder))}


def main() -> None:
    st.set_page_config(page_title=TITLE)
    backend = connect(*sys.argv[1:4])
    st.title(TITLE)
    picture, text = st.tabs(["Picture", "Text"])
    with picture:
        picture_page(backend)
    with text:
        text_page(backend)


@st.fragment
def picture_page(backend: Backend) -> None:
    model = chosen(backend, PICTURES)
    if model is None:
        return
    sent = st.file_uploader("A picture", key="file")
    if st.toggle("Use the camera"):
        sent = st.camera_input("A photo") or sent
    content = sent.getvalue() if sent else None
    if content is None:
        name = st.radio(
            "Or an example (the starter weights know drawings like these, and nothing else)",
            list(drawn()),
            horizontal=True,
        )
        content = drawn()[name]
        st.html(markup.picture(content, f"a drawing: {name}"))
    if st.button("Classify", type="primary"):
        try:
            st.html(STYLE + markup.bars(backend.classify(model, content, LABELS)))
        except ServeError as error:
            st.html(STYLE + markup.alert(said(error)))


@st.fragment
def text_page(backend: Backend) -> None:
    model = chosen(backend, TEXTS)
    if model is None:
        return
    try:
        entry = backend.entry(model)
    except ServeError as error:
        st.html(STYLE + markup.alert(said(error)))
        return
    reports = {f"report {number}": report for number, report in enumerate(examples.reports(), 1)}
    name = st.radio(
        "Example (the starter weights know short reports like these, and nothing else)",
        [*reports, TYPED],
        horizontal=True,
    )
    text = st.text_area("Text", reports.get(name, ""), height=200, key=f"text of {name}")
    words = {"max_new_tokens": "Most tokens", "min_new_tokens": "Fewest tokens", "num_beams": "Beams"}
    parameters = {}
    for (parameter, label), column in zip(words.items(), st.columns(len(words)), strict=True):
        low, high = entry.limits(parameter)
        key = f"{parameter} of {model}"  # each model has its own default
        parameters[parameter] = column.number_input(label, low, high, entry.default(parameter), key=key)
    if st.button("Summarize", type="primary"):
        try:
            with st.spinner("The model writes"):
                summary, truncated = backend.summarize(model, text, **parameters)
        except ServeError as error:
            st.html(STYLE + markup.alert(said(error)))
            return
        st.html(STYLE + markup.answer(summary))
        if truncated:
            st.html(STYLE + markup.note(markup.CUT))


def chosen(backend: Backend, task: str) -> str | None:
    """The model that is chosen, or None where there is none to choose, which is said."""
    try:
        names = backend.models(task)
    except ServeError as error:
        st.html(STYLE + markup.alert(said(error)))
        return None
    if not names:
        st.html(STYLE + markup.note(f"The server has no model for {task}."))
        return None
    return st.radio("Model", names, horizontal=True, key=task)


main()
