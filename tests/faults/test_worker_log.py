"""The levels in workers.log: TorchServe itself logs each line of a worker's output as INFO."""

import re
import time
from pathlib import Path

import httpx
import pytest

from tests.faults.toys import BROKEN_AT_LOAD, LOGGING, toy
from torchserve_models import serving
from torchserve_models.serving.errors import ModelFailed
from torchserve_models.serving.run_config.run_dir import RunDir

pytestmark = pytest.mark.usefixtures("fast_toys")

WORKER_LINE = re.compile(r"^\S+ (?P<level>\w+) +W-\d+-toy_\S+-stdout - (?P<text>.*)$")


def read_output(log: Path, last: str) -> list[tuple[str, str]]:
    """Return the level and text of each line that a worker printed, once it has printed the line `last`."""
    deadline = time.monotonic() + 30
    while True:
        matches = map(WORKER_LINE.match, log.read_text().splitlines())
        lines = [(match["level"], match["text"]) for match in matches if match]
        if any(last in text for _, text in lines):
            return lines
        assert time.monotonic() < deadline, lines
        time.sleep(0.1)


def test_each_line_of_an_error_has_its_level_and_request(tmp_path):
    toy(tmp_path, "toy", LOGGING)
    with serving.start(["toy"], pack=False, run_dir=tmp_path / "run", store=tmp_path) as server:
        httpx.post(f"{server.inference}/predictions/toy", content=b"x", timeout=30).raise_for_status()
        lines = read_output(RunDir(tmp_path / "run").workers_log, "as printed")
    errors = [text for level, text in lines if level == "ERROR"]
    assert errors[0] == "[request mine, REST] unexpected error"
    assert errors[1] == "[request mine, REST] Traceback (most recent call last):"
    assert errors[-1] == "[request mine, REST] KeyError: 'config'"
    assert all(text.startswith("[request mine, REST] ") for text in errors)
    assert ("INFO", "as printed") in lines
    assert not [text for _, text in lines if "[ERROR]" in text]


def test_end_of_a_worker_that_cannot_load_is_an_error(tmp_path):
    toy(tmp_path, "toy", BROKEN_AT_LOAD)
    with pytest.raises(ModelFailed, match="another architecture"):
        serving.start(["toy"], pack=False, run_dir=tmp_path / "run", store=tmp_path)
    lines = read_output(RunDir(tmp_path / "run").workers_log, "Backend worker process died.")
    assert ("ERROR", "Backend worker process died.") in lines
    assert ("ERROR", "Traceback (most recent call last):") in lines
