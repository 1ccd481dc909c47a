"""The command in a process of its own: the environment's variables, exit codes, signals, two at once."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.unit.packing.archive.test_archive import COMMAND, run
from tests.unit.packing.conftest import HUB_ID, ROOT, Bench
from tests.unit.packing.fake_hub import FakeHub, Fault
from torchserve_models.packing import cli, errors
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


def test_the_hubs_variables_are_respected(bench: Bench, fake_hub: FakeHub, tmp_path: Path) -> None:
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
def test_an_interrupted_download_leaves_nothing_but_what_it_can_go_on_from(
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
        _, said = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == code
    assert "Traceback" not in said
    assert not bench.store.exists()
    assert not bench.layout.lock.exists()
    assert list(temporary.iterdir()) == []
    fake_hub.faults.clear()
    fake_hub.requests.clear()
    assert run(bench, "small-net", "--store", str(bench.store), **variables).returncode == 0
    ranges = [request.range for request in fake_hub.downloads(WEIGHTS)]
    assert ranges == ["bytes=0-0", "bytes=1000-"]  # the question whether the weights can be had, and the rest


def test_a_disk_that_fills_up_during_the_download(bench: Bench, fake_hub: FakeHub, tmp_path: Path) -> None:
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


def test_too_little_space_for_the_download_is_known_beforehand(
    bench: Bench, fake_hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(bench.layout.root)._replace(free=1000)
    monkeypatch.setattr(download.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(errors.NoSpace, match=r"The download needs.*HF_HOME"):
        bench.pack(weights="pretrained")
    assert fake_hub.downloads(WEIGHTS) == []


@pytest.mark.parametrize("endpoint", ["nonsense", "http://127.0.0.1:1", "ftp://127.0.0.1"])
def test_an_endpoint_that_is_none(bench: Bench, tmp_path: Path, endpoint: str) -> None:
    variables = {"HF_ENDPOINT": endpoint, "HF_HOME": str(tmp_path / "home")}
    done = run(bench, "--weights", "pretrained", "--store", str(bench.store), **variables)
    assert done.returncode == 1
    assert "error:" in done.stderr
    assert "Traceback" not in done.stderr


def test_two_at_once_make_one_whole_archive(bench: Bench, fake_hub: FakeHub, tmp_path: Path) -> None:
    variables = environment(fake_hub, tmp_path / "home")
    both = [start(bench, "small-net", "--weights", "pretrained", **variables) for _ in range(2)]
    said = [process.communicate(timeout=120) for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    assert len({output.replace("unchanged", "packed") for output, _ in said}) == 1
    assert bench.leftovers() == []
    assert len([r for r in fake_hub.downloads(WEIGHTS) if r.method == "GET"]) == 1


def test_one_failure_does_not_stop_the_others(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["nobody", "small-net", "--weights", "starter", "--store", str(bench.store)]
    assert cli.main(arguments, bench.layout) == 1
    printed = capsys.readouterr()
    assert "nobody: error: There is no model 'nobody'" in printed.err
    assert "small-net: packed" in printed.out


def test_from_wants_one_name(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    for names in ([], ["a", "b"]):
        with pytest.raises(SystemExit) as ended:
            cli.main([*names, "--from", "x/y"], bench.layout)
        assert ended.value.code == 2
        assert "exactly one NAME" in capsys.readouterr().err


def test_packing_a_starter_imports_neither_torch_nor_the_hub(bench: Bench) -> None:
    code = (
        "import sys\nfrom pathlib import Path\nfrom torchserve_models.packing.cli import main\n"
        "from torchserve_models.packing.models import Layout\n"
        f"main(['small-net', '--weights', 'starter', '--store', {str(bench.store)!r}],"
        f" Layout(Path({str(bench.layout.root)!r})))\n"
        "print({'torch', 'transformers', 'huggingface_hub', 'httpx2'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120, check=True
    )
    assert done.stdout.splitlines()[-1] == "set()"
