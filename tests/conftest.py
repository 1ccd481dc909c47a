"""Fixtures for all tests."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from torchserve_models import serving

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real photos, articles, tokenizers and weights that are not ours: beside a checkout or not at all."""
    folder = ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("../shared/data is not on this machine")
    return folder


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator["serving.Server"]:
    """One real TorchServe with the three starters on free ports, for all tests that ask for it."""
    from tests.live_server import alive, processes
    from torchserve_models import serving

    running = serving.start(
        weights="starter", run_dir=tmp_path_factory.mktemp("run"), store=tmp_path_factory.mktemp("store")
    )
    try:
        yield running
    finally:
        family = processes(running)
        running.stop()
        assert [process for process in family if alive(process)] == []
        assert running.failure is None
