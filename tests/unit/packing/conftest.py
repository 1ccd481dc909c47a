"""Fixtures of the packing tests: small random models, a temporary repository and a fake hub."""

import compileall
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.unit.packing.fake_hub import FakeHub
from torchserve_models.packing import PackRequest, pack
from torchserve_models.packing.artifacts import cache, preparation
from torchserve_models.packing.artifacts.cache import MAX_ENTRIES
from torchserve_models.packing.build import PackedArchive
from torchserve_models.packing.models import RepositoryLayout

ROOT = Path(__file__).resolve().parent.parent.parent.parent
LAYOUT = RepositoryLayout(ROOT)
HUB_ID = "owner/small-net"


@pytest.fixture(autouse=True)
def _forked_modules(
    forked_modules: None, cached_compiler: Path | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Prepare and convert models in forks; test_pack_command.py runs separate processes."""
    if cached_compiler is not None:
        monkeypatch.setenv("PATH", str(cached_compiler), prepend=os.pathsep)


@pytest.fixture(scope="session")
def resnet_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny ResNet with random weights in a Hugging Face model folder."""
    import torch
    from transformers import ConvNextImageProcessor, ResNetConfig, ResNetForImageClassification

    folder = tmp_path_factory.mktemp("models") / "net"
    torch.manual_seed(0)
    config = ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], num_labels=3, layer_type="basic"
    )
    ResNetForImageClassification(config).save_pretrained(folder)
    ConvNextImageProcessor(size={"shortest_edge": 32}).save_pretrained(folder)
    (folder / "README.md").write_text("---\nlicense: apache-2.0\n---\n# A net\n")
    return folder


@pytest.fixture(scope="session")
def t5_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny T5 with random weights in two shards, and a tokenizer with four tokens."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast, T5Config, T5ForConditionalGeneration

    folder = tmp_path_factory.mktemp("models") / "t5"
    torch.manual_seed(0)
    config = T5Config(
        vocab_size=16, d_model=16, d_kv=8, d_ff=32, num_layers=1, num_heads=2, decoder_start_token_id=0
    )
    T5ForConditionalGeneration(config).save_pretrained(folder, max_shard_size="4KB")
    words = Tokenizer(models.WordLevel({"<pad>": 0, "</s>": 1, "<unk>": 2, "rain": 3}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    ).save_pretrained(folder)
    return folder


def content_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


@dataclass
class Bench:
    """A temporary repository with the model `small-net`, a store, and the reported messages."""

    layout: RepositoryLayout
    store: Path
    messages: list[str] = field(default_factory=list)

    def pack(self, name: str = "small-net", **options: Any) -> PackedArchive:
        return pack(PackRequest(name, store=self.store, **options), self.messages.append, self.layout)

    def leftovers(self) -> list[str]:
        """Return the names of files in the store that are not archives."""
        if not self.store.is_dir():
            return []
        return [path.name for path in self.store.iterdir() if path.suffix != ".mar"]


@pytest.fixture(scope="session")
def prepared(pytestconfig: pytest.Config) -> Path:
    """A cache of prepared files that is shared by all tests and runs, because preparation takes seconds.

    Keys contain digests of the code, so the cache is never stale. Tests of the cache itself use `empty_cache`.
    """
    assert pytestconfig.cache is not None
    return pytestconfig.cache.mkdir("prepared")


@pytest.fixture(scope="session")
def compiled_handlers() -> Path:
    """The handlers with their byte code, which each preparation process would otherwise compile."""
    compileall.compile_dir(ROOT / "handlers", quiet=1)
    return ROOT / "handlers"


@pytest.fixture
def bench(
    tmp_path: Path,
    resnet_folder: Path,
    prepared: Path,
    compiled_handlers: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Bench:
    monkeypatch.setattr(cache, "MAX_ENTRIES", 100)  # of `small-net`, which is another model in each test
    root = tmp_path / "root"
    (root / "model_store").mkdir(parents=True)
    (root / "model_store" / ".prepared").symlink_to(prepared)
    shutil.copytree(compiled_handlers, root / "handlers")
    model = root / "models" / "small-net"
    shutil.copytree(resnet_folder, model / "starter")
    (model / "source.yaml").write_text(f"task: image-classification\nhub: {HUB_ID}\nlicense: mit\n")
    shutil.copy(ROOT / "models" / "resnet-50" / "model-config.yaml", model)
    return Bench(RepositoryLayout(root), tmp_path / "store")


def point_library_at(url: str, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Set the endpoint, cache and timeout of huggingface_hub, which reads their variables only when imported."""
    from huggingface_hub import constants
    from huggingface_hub.utils import close_session

    from torchserve_models.packing.sources import hub

    monkeypatch.setattr(constants, "ENDPOINT", url)
    template = url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", 1)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(cache / "no-token"))
    for variable in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(variable, raising=False)
        monkeypatch.delenv(variable.lower(), raising=False)
    monkeypatch.setattr(hub, "_unreachable_errors", {})
    close_session()


@pytest.fixture
def fake_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, resnet_folder: Path, no_retry_delay: None
) -> Iterator[FakeHub]:
    """A fake hub with `owner/small-net`, used by huggingface_hub with an empty cache."""
    from huggingface_hub.utils import close_session

    with FakeHub() as hub:
        hub.add(HUB_ID, content_of(resnet_folder))
        point_library_at(hub.url, tmp_path / "cache", monkeypatch)
        yield hub
        close_session()


@pytest.fixture
def no_retry_delay(monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove the delay before a broken download resumes."""
    from torchserve_models.packing.sources import resumable_download

    monkeypatch.setattr(resumable_download, "time", SimpleNamespace(sleep=lambda _: None))


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """A function that has the effect of HF_HUB_OFFLINE=1."""
    from huggingface_hub import constants

    return lambda: monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)


@pytest.fixture
def empty_cache(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of prepared files in place of the shared one."""
    monkeypatch.setattr(cache, "MAX_ENTRIES", MAX_ENTRIES)
    bench.layout.prepared.unlink()
    return bench.layout.prepared


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    random = np.random.default_rng(0)
    for number in range(8):
        Image.fromarray(random.integers(0, 256, (40, 48, 3), np.uint8)).save(folder / f"{number}.png")
    return folder


@pytest.fixture
def no_process(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """A function after whose call any preparation fails the test."""
    return lambda: monkeypatch.setattr(preparation, "_run", lambda *_: pytest.fail("prepared again"))
