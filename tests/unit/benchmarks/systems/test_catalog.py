"""Which systems there are, and what the peers bring."""

import pytest

from benchmarks import environments
from benchmarks.errors import BenchError
from benchmarks.systems.catalog import catalog, chosen
from benchmarks.texts.catalog import catalog as summarizers
from benchmarks.texts.models import T5_SMALL

PEERS = [system for system in catalog() if system.peer]


@pytest.mark.parametrize("system", PEERS, ids=lambda system: system.name)
def test_every_peer_has_its_files_and_a_request(system):
    assert (environments.PEERS / system.name / "requirements.txt").is_file()
    assert system.request(b"image").startswith(f"POST {system.path} HTTP/1.1\r\n".encode())


def test_no_peers_files_are_left_over():
    texts = {server.files for server in summarizers(T5_SMALL) if server.peer}
    wanted = {system.name for system in PEERS} | texts
    assert {path.name for path in environments.PEERS.iterdir()} == wanted


def test_systems_are_chosen_by_name_in_the_order_of_the_table():
    assert [system.name for system in chosen(["flask", "ceiling"])] == ["ceiling", "flask"]
    assert len(chosen([])) == len(catalog()) == 10
    with pytest.raises(BenchError, match="known are"):
        chosen(["nothing"])
