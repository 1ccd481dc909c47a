"""The systems, their files and requests, and the selection by name."""

import ast
import json
import os
import re
import subprocess
from functools import partial

import pytest

from benchmarks import environments
from benchmarks.errors import BenchmarkError
from benchmarks.scenarios.text_models import T5_SMALL
from benchmarks.scenarios.workloads import WORKLOADS
from benchmarks.systems import catalog
from benchmarks.systems.catalog import select_image_systems, select_text_systems
from benchmarks.systems.peers import Peer
from benchmarks.systems.product import build_rest_request

IMAGE_PEERS = [system for system in catalog.list_image_systems() if isinstance(system, Peer)]
TEXT_PEERS = [system for system in catalog.list_text_systems() if isinstance(system, Peer)]
ENVIRONMENTS = {(peer.files, peer.requirements): peer for peer in (*IMAGE_PEERS, *TEXT_PEERS)}


def test_peers_have_all_their_files_and_no_others():
    for peer in (*IMAGE_PEERS, *TEXT_PEERS):
        assert os.access(peer.files / "run", os.X_OK)
        assert not peer.requirements or (peer.files / peer.requirements).is_file()
    folders = {path for path in environments.PEERS.iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert folders == {files for files, _ in ENVIRONMENTS}


@pytest.mark.slow
@pytest.mark.parametrize("peer", ENVIRONMENTS.values(), ids=lambda peer: peer.rows[0].name)
def test_new_environment_of_a_peer_has_its_commands_and_modules(peer, tmp_path):
    """pip skips packages that this project has in the same version, so their commands are missing."""
    bin_folder, script = peer.install(tmp_path), (peer.files / "run").read_text()
    commands = re.findall(r"^exec (\w+)", script, re.MULTILINE)
    assert [command for command in commands if not (bin_folder / command).exists()] == []
    imports = [f"import {module}" for module in re.findall(r"python -m (\w+)", script)]
    nodes = [node for path in peer.files.glob("*.py") for node in ast.parse(path.read_text()).body]
    imports += [ast.unparse(node) for node in nodes if isinstance(node, ast.Import | ast.ImportFrom)]
    environment = {"PYTHONPATH": str(environments.PEERS)}
    subprocess.run([bin_folder / "python", "-c", "\n".join(imports)], env=environment, check=True)


@pytest.mark.parametrize(
    "build", [*(peer.build_request for peer in IMAGE_PEERS), partial(build_rest_request, "m")]
)
def test_image_request_is_complete(build):
    head, _, body = build(b"image").partition(b"\r\n\r\n")
    assert head.startswith(b"POST /")
    assert f"Content-Length: {len(body)}".encode() in head


@pytest.mark.parametrize("peer", TEXT_PEERS, ids=lambda peer: peer.rows[0].name)
def test_text_request_has_the_text_with_prefix_and_its_length(peer):
    request = WORKLOADS["b"].requests(T5_SMALL)[0]
    body = json.dumps(json.loads(peer.build_request(request).partition(b"\r\n\r\n")[2])).replace("\\", "")
    assert T5_SMALL.prefix + request.text in body
    assert f'"max_new_tokens": {request.new_tokens}' in body


def test_text_request_to_this_repository_has_no_prefix():
    request = WORKLOADS["b"].requests(T5_SMALL)[0]
    body = json.loads(build_rest_request("t5-small", request).partition(b"\r\n\r\n")[2])
    assert body == {"inputs": request.text, "parameters": request.parameters}


def list_rows(systems):
    return [row.name for system in systems for row in system.rows]


def test_image_systems_are_selected_by_name_in_the_order_of_the_table():
    assert list_rows(select_image_systems(["flask", "product-grpc"])) == ["product-grpc", "flask"]
    assert len(list_rows(select_image_systems([]))) == 10
    with pytest.raises(BenchmarkError, match="valid names: ceiling, "):
        select_image_systems(["nothing"])


def test_text_systems_are_selected_by_name_and_workload():
    names = list_rows(select_text_systems((), tuple(WORKLOADS)))
    assert {f"{name} a" for name in catalog.list_text_names()} <= set(names)
    assert "litserve c" in names
    assert "openvino b" not in names  # libraries are measured under (a) only
    assert list_rows(select_text_systems(("litserve",), ("b", "d"))) == ["litserve b"]
    with pytest.raises(BenchmarkError, match="--systems openvino requires the workload a"):
        select_text_systems(("openvino",), ("b",))


def test_systems_in_bf16_are_left_out_without_bf16_instructions(monkeypatch):
    monkeypatch.setattr(catalog, "has_any", lambda _: False)
    names = catalog.list_text_names()
    assert "openvino" in names
    assert not [name for name in names if "bf16" in name]
