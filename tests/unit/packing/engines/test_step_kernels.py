"""Compilation of the decoding step."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from handlers.engines.base import EngineUnavailable
from handlers.engines.seq2seq.step_kernels import LEVELS, VERSION, library_name
from tests.tools import find_tool, needs
from torchserve_models.packing.engines import step_kernels
from torchserve_models.packing.engines.step_kernels import build
from torchserve_models.packing.engines.summarizer import prepare_summarizer


def test_missing_requirement_is_recorded_as_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def reason() -> str:
        return str(prepare_summarizer(tmp_path / "prepared", "auto")["step_kernels"]["none"])

    source = tmp_path / "step_attention.cpp"
    source.write_text("int main() { return nothing; }\n")
    monkeypatch.setattr(step_kernels, "_SOURCES", (source,))
    monkeypatch.setattr(step_kernels.platform, "machine", lambda: "x86_64")
    if shutil.which("g++"):
        assert re.match(r"g\+\+ failed: step_attention.cpp.*error.*nothing", reason())
    monkeypatch.setattr(step_kernels.shutil, "which", lambda name: "/bin/false")
    assert reason() == "g++ failed: no message"
    monkeypatch.setattr(step_kernels.shutil, "which", lambda name: None)
    assert reason() == "g++ is not installed"
    monkeypatch.setattr(step_kernels.platform, "machine", lambda: "aarch64")
    assert reason() == "the compiled decoding step requires x86-64 Linux"
    assert [path.name for path in (tmp_path / "prepared").iterdir()] == ["prepared.json"]


def test_code_and_worker_have_the_same_version() -> None:
    """Otherwise no worker loads the code, and the tests that need it are skipped."""
    code = Path(step_kernels.__file__).with_name("decoder_layers.cpp").read_text()
    assert f"step_kernels_version() {{ return {VERSION}; }}" in code


@pytest.mark.full
@needs("g++")
def test_library_is_reproducible_and_links_no_openmp(
    tmp_path: Path, cached_compiler: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second library is of objects that an earlier test or test run compiled, in another folder."""
    contents = []
    for name, path in (("first", str(Path(find_tool("g++") or "").parent)), ("second", str(cached_compiler))):
        monkeypatch.setenv("PATH", path, prepend=os.pathsep)
        (tmp_path / name).mkdir()
        try:
            build(tmp_path / name)
        except EngineUnavailable as error:
            if "failed" in str(error):
                raise
            pytest.skip(f"no compiled attention on this machine: {error}")
        contents.append([(tmp_path / name / library_name(level)).read_bytes() for level in LEVELS])
    assert contents[0] == contents[1]
    for level, content in zip(LEVELS, contents[0], strict=True):
        assert str(Path(__file__).parents[4]).encode() not in content
        command = ["ldd", tmp_path / "first" / library_name(level)]
        libraries = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        assert "libgomp" not in libraries
