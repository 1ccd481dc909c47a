"""Facts about the machine."""

from benchmarks.machine import describe_machine


def test_machine_is_described_with_its_limit():
    facts = {"cores": 2, "cpu": "a Xeon", "isa": "avx2", "flags": ["avx2"], "gpu": None}
    assert describe_machine(facts) == "2 cores of a Xeon limited to avx2 (no fast bf16 or int8), no GPU"
    assert describe_machine(facts | {"isa": None}).startswith("2 cores of a Xeon (no")
