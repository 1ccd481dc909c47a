"""Preparation of a summarizer."""

import json
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from handlers.summarizer import Summarizer
from tests.unit.handlers.context import FakeContext
from tests.unit.handlers.text.reference import Reference
from tests.unit.handlers.text.tiny import SENTENCES
from tests.unit.handlers.text.tiny_architectures import WRITERS
from tests.unit.handlers.text.tiny_marian import write_marian
from tests.unit.packing.conftest import Bench
from torchserve_models.packing.engines.summarizer import prepare_summarizer


def test_decoding_step_is_not_compiled_for_the_torch_engine(tmp_path: Path) -> None:
    facts = prepare_summarizer(tmp_path, "torch")
    assert facts == {"engine": "torch"} == json.loads((tmp_path / "prepared.json").read_text())


@pytest.mark.parametrize(
    ("write", "tokenizer_files"),
    [
        (WRITERS["pegasus"], {"tokenizer.json"}),
        (WRITERS["marian"], {"tokenizer.json"}),
        (write_marian, {"source.spm", "target.spm", "vocab.json"}),
        (
            partial(write_marian, separate=True),
            {"source.spm", "target.spm", "vocab.json", "target_vocab.json"},
        ),
    ],
    ids=["Pegasus", "Marian with tokenizer.json", "Marian", "Marian with two vocabularies"],
)
@pytest.mark.filterwarnings("ignore:Recommended. pip install sacremoses")
@pytest.mark.full
def test_packed_model_is_served_by_the_native_engine(
    bench: Bench, tmp_path: Path, write: Callable[[Path], Path], tokenizer_files: set[str]
) -> None:
    packed = bench.pack("other", source=str(write(tmp_path / "source")))
    with zipfile.ZipFile(packed.path) as archive:
        archive.extractall(tmp_path / "served")
    assert tokenizer_files <= {path.name for path in (tmp_path / "served" / "model").iterdir()}
    handler = Summarizer()
    handler.initialize(FakeContext(tmp_path / "served", {"handler": {"precision": "fp32", "threads": 1}}))
    assert handler.describe()["engine"] == "native"
    reference = Reference(tmp_path / "source", handler.describe()["max_input_tokens"])
    parameters: dict[str, Any] = {"max_new_tokens": 12, "num_beams": 2}
    texts = ("Rain.", *SENTENCES[:2])
    summaries = handler.predict([handler.decode(text, parameters) for text in texts])
    expected = [reference.tokens(text, parameters) for text in texts]
    assert [summary.token_ids for summary in summaries] == expected
    assert [summary.text for summary in summaries] == [reference.text(tokens) for tokens in expected]
