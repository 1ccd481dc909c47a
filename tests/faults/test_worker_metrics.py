"""The metrics of a worker that ends: TorchServe keeps its counts and adds those of the next worker."""

import time

import httpx
import pytest

from handlers.core.metrics import WORKER_STARTS
from tests.faults.toys import COUNTING, VERSION, toy
from torchserve_models import serving
from torchserve_models.client import Client

pytestmark = pytest.mark.usefixtures("fast_toys")


def test_restart_after_a_crash_is_counted(tmp_path):
    toy(tmp_path, "toy", COUNTING)
    with (
        serving.start(["toy"], pack=False, run_dir=tmp_path / "run", store=tmp_path) as server,
        Client(endpoints=server.endpoints) as client,
    ):

        def starts() -> float:
            return client.metrics().total(WORKER_STARTS, ModelName="toy", ModelVersion=VERSION)

        assert starts() == 1
        httpx.post(f"{server.inference}/predictions/toy", content=b"exit", timeout=30)
        deadline = time.monotonic() + 30
        while starts() < 2:
            assert time.monotonic() < deadline, starts()
            time.sleep(0.1)
