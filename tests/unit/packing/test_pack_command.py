"""The command `pack` in a separate process: environment variables, exit codes, signals and concurrent runs."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.unit.cli.parsing import parse_options
from tests.unit.packing.archive.test_archive import COMMAND, run
from tests.unit.packing.conftest import HUB_ID, ROOT, Bench
from tests.unit.packing.fake_hub import FakeHub, Fault
from torchserve_models.cli import main
from torchserve_models.cli.pack import TORCHVISION, PackOptions
from torchserve_models.packing import PackRequest, errors, models, request
from torchserve_models.packing.sources import download

WEIGHTS = "model.safetensors"


def environment(hub: FakeHub, home: Path) -> dict[str, str]:
    return {"HF_ENDPOINT": hub.url, "HF_HOME": str(home), "HF_HUB_DOWNLOAD_TIMEOUT": "30"}


def start(bench: Bench, *arguments: str, **variables: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", COMMAND, str(bench.layout.root), *arguments, "--store", str(bench.store)]
    everything = {**os.environ, "PYTHONPATH": str(ROOT), **variables}
    return subprocess.Popen(
        command, env=everything, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


@pytest.mark.full
def test_hub_environment_variables_are_respected(bench: Bench, fake_hub: FakeHub, tmp_path: Path) -> None:
    variables = {**environment(fake_hub, tmp_path / "home"), "HF_TOKEN": "hf_secret"}
    done = run(bench, "--store", str(bench.store), **variables)
    assert done.returncode == 0, done.stderr
    lock = json.loads(bench.layout.lock.read_text())
    assert lock[HUB_ID]["revision"] == fake_hub.repositories[HUB_ID].head
    assert {request.authorization for request in fake_hub.requests} == {"Bearer hf_secret"}
    assert list((tmp_path / "home" / "hub").glob(f"models--*/snapshots/*/{WEIGHTS}"))
    for part in ("pretrained-", "sha256", str(bench.store / "small-net.mar")):
        assert part in done.stdout
    fake_hub.requests.clear()
    again = run(bench, "--store", str(bench.store), **variables, HF_HUB_OFFLINE="1")
    assert again.returncode == 0, again.stderr
    assert "unchanged" in again.stdout
    assert fake_hub.requests == []


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.full
def test_interrupted_download_leaves_only_the_resumable_file(
    bench: Bench, fake_hub: FakeHub, tmp_path: Path, number: int, code: int
) -> None:
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    variables = {**environment(fake_hub, tmp_path / "home"), "TMPDIR": str(temporary)}
    fake_hub.faults = [
        Fault(f"resolve/.*{WEIGHTS}", cut_at=1000, times=1),
        Fault(f"resolve/.*{WEIGHTS}", hang=True),
    ]
    process = start(bench, "small-net", "--weights", "pretrained", **variables)
    try:
        deadline = time.monotonic() + 60
        while len(fake_hub.downloads(WEIGHTS)) < 2 and time.monotonic() < deadline:
            time.sleep(0.02)
        process.send_signal(number)
        _, errors = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == code
    assert "Traceback" not in errors
    assert not bench.store.exists()
    assert not bench.layout.lock.exists()
    assert list(temporary.iterdir()) == []
    fake_hub.faults.clear()
    fake_hub.requests.clear()
    assert run(bench, "small-net", "--store", str(bench.store), **variables).returncode == 0
    ranges = [request.range for request in fake_hub.downloads(WEIGHTS)]
    assert ranges == ["bytes=0-0", "bytes=1000-"]  # the question whether the weights can be had, and the rest


@pytest.mark.full
def test_full_disk_during_download_is_reported(bench: Bench, fake_hub: FakeHub, tmp_path: Path) -> None:
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))\n"
    variables = environment(fake_hub, tmp_path / "home")
    arguments = ("small-net", "--weights", "pretrained", "--store", str(bench.store))
    done = run(bench, *arguments, prefix=limit, **variables)
    assert done.returncode == 1
    assert "No space left" in done.stderr
    assert "HF_HOME" in done.stderr
    assert "Traceback" not in done.stderr
    assert not bench.store.exists()
    assert run(bench, *arguments, **variables).returncode == 0
    assert fake_hub.downloads(WEIGHTS)[-1].range == "bytes=20000-"


def test_insufficient_space_is_reported_before_the_download(
    bench: Bench, fake_hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(bench.layout.root)._replace(free=1000)
    monkeypatch.setattr(download.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(errors.DiskFull, match=r"The download needs.*HF_HOME"):
        bench.pack(weights="pretrained")
    assert fake_hub.downloads(WEIGHTS) == []


@pytest.mark.parametrize("endpoint", ["nonsense", "http://127.0.0.1:1", "ftp://127.0.0.1"])
def test_invalid_endpoint_is_reported(bench: Bench, tmp_path: Path, endpoint: str) -> None:
    variables = {"HF_ENDPOINT": endpoint, "HF_HOME": str(tmp_path / "home")}
    done = run(bench, "--weights", "pretrained", "--store", str(bench.store), **variables)
    assert done.returncode == 1
    assert "error:" in done.stderr
    assert "Traceback" not in done.stderr


def test_concurrent_packs_produce_one_valid_archive(bench: Bench, fake_hub: FakeHub, tmp_path: Path) -> None:
    variables = environment(fake_hub, tmp_path / "home")
    both = [start(bench, "small-net", "--weights", "pretrained", **variables) for _ in range(2)]
    outputs = [process.communicate(timeout=120) for process in both]
    assert [process.returncode for process in both] == [0, 0], outputs
    assert len({output.replace("unchanged", "packed") for output, _ in outputs}) == 1
    assert bench.leftovers() == []
    assert len([r for r in fake_hub.downloads(WEIGHTS) if r.method == "GET"]) == 1


def test_failure_of_one_model_does_not_stop_the_others(
    bench: Bench, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(models, "LAYOUT", bench.layout)
    arguments = ["pack", "nobody", "small-net", "--weights", "starter", "--store", str(bench.store)]
    assert main(arguments) == 1
    printed = capsys.readouterr()
    assert "nobody: error: There is no model 'nobody'" in printed.err
    assert "small-net: packed" in printed.out
    assert main([*arguments, "--json"]) == 1
    failed, packed = map(json.loads, capsys.readouterr().out.splitlines())
    assert (failed["name"], failed["error"]["type"]) == ("nobody", "UnknownModel")
    assert (packed["name"], packed["path"]) == ("small-net", str(bench.store / "small-net.mar"))
    assert packed["unchanged"]


def test_from_option_requires_exactly_one_name(capsys: pytest.CaptureFixture[str]) -> None:
    for names in ([], ["a", "b"]):
        assert main(["pack", *names, "--from", "x/y"]) == 2
        assert "exactly one NAME" in capsys.readouterr().err


def test_packing_a_starter_imports_neither_torch_nor_the_hub(bench: Bench) -> None:
    code = (
        "import sys\nfrom pathlib import Path\nfrom torchserve_models.cli import main\n"
        "from torchserve_models.packing import models\n"
        f"models.LAYOUT = models.RepositoryLayout(Path({str(bench.layout.root)!r}))\n"
        f"main(['pack', 'small-net', '--weights', 'starter', '--store', {str(bench.store)!r}])\n"
        "print({'torch', 'transformers', 'huggingface_hub', 'httpx2'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120, check=True
    )
    assert done.stdout.splitlines()[-1] == "set()"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["a", "b", "--calibrate", "x"], "--calibrate requires exactly one NAME"),
        (["--handler", "x.py"], "--handler requires exactly one NAME"),
        (["a", "--pickled"], "--pickled requires --from"),
        (
            ["a", "--transforms", "x"],
            "--state-dict and --transforms require --from torchvision:ARCHITECTURE",
        ),
        (["a", "--from", "torchvision:resnet18"], "requires --state-dict FILE and --labels FILE"),
        (["a", "--labels", "x"], "--labels requires --from and cannot be combined with --handler"),
        (["a", "--keep", "-1"], "is not a number of archives"),
        (["a", "--weights", "none"], "'none' is not one of 'auto', 'pretrained', 'starter'"),
    ],
)
def test_incompatible_options_are_a_usage_error(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["pack", *arguments]) == 2
    assert message in capsys.readouterr().err


def test_option_defaults_equal_those_of_pack_request() -> None:
    options = parse_options(PackOptions, "a")
    assert options.request("a") == PackRequest("a")
    assert TORCHVISION == request.TORCHVISION
