"""Fixtures of the handler tests."""

import ctypes
import os
from pathlib import Path
from typing import Any

import pytest

from handlers.core.device import cpu_flags
from handlers.engines.base import EngineUnavailable
from handlers.engines.seq2seq import step_kernels
from handlers.engines.seq2seq.step_kernels import LEVELS, load_step_kernels
from torchserve_models.packing.engines.step_kernels import build


@pytest.fixture(scope="session")
def compiled_step(tmp_path_factory: pytest.TempPathFactory, cached_compiler: Path | None) -> Path:
    """Return a folder with the compiled code of a decoding step, as packing creates it."""
    folder = tmp_path_factory.mktemp("prepared")
    try:
        with pytest.MonkeyPatch.context() as patched:
            if cached_compiler is not None:
                patched.setenv("PATH", str(cached_compiler), prepend=os.pathsep)
            build(folder)
        load_step_kernels(folder)
    except EngineUnavailable as error:
        if "failed" in str(error):
            raise
        pytest.skip(f"no compiled decoding step on this machine: {error}")
    return folder


@pytest.fixture(scope="session", params=LEVELS)
def kernels(request: Any) -> ctypes.CDLL | None:
    """Return the compiled code for each level that this CPU supports, or None for the parameter None."""
    if request.param is None:
        return None
    if not LEVELS[request.param] <= cpu_flags():
        pytest.skip(f"this CPU does not support {request.param}")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(step_kernels, "cpu_flags", lambda: LEVELS[request.param])
        return load_step_kernels(request.getfixturevalue("compiled_step"))
