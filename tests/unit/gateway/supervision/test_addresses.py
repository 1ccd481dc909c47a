"""Tests of addresses to listen on."""

from contextlib import ExitStack

from torchserve_models.gateway.supervision.addresses import reserve_ports


def test_ports_zero_become_different_free_ports_and_others_stay():
    with ExitStack() as reservations:
        unchanged, *changed = reserve_ports(reservations, "127.0.0.1:8000", *["127.0.0.1:0"] * 20)
    assert unchanged == "127.0.0.1:8000"
    assert len({int(address.rpartition(":")[2]) for address in changed} - {0}) == 20
