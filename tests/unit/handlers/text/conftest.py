"""Fixtures of the summarizer's tests."""

from pathlib import Path

import pytest

from handlers.engines.base import EngineUnavailable
from handlers.engines.seq2seq.step_attention import StepAttention, build


@pytest.fixture(scope="session")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with a step's attention as packing compiles it."""
    folder = tmp_path_factory.mktemp("prepared")
    try:
        build(folder)
        StepAttention(folder, 64)
    except EngineUnavailable as error:
        if "failed" in str(error):
            raise
        pytest.skip(f"no compiled attention here: {error}")
    return folder
