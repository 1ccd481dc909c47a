"""The keys in the gateway's memory follow the key file; each has its rate."""

import os
from collections import Counter

import pytest

from torchserve_models.gateway.keys.api_key import ApiKey
from torchserve_models.gateway.keys.key_file import KeyFile, KeyFileError
from torchserve_models.gateway.keys.key_store import KeyStore


@pytest.fixture
def file(tmp_path):
    return KeyFile(tmp_path / "keys.json")


def add(file, **options):
    key, text = ApiKey.create("shop", ("inference",), **options)
    file.add(key)
    return key, text


def test_changes_apply_to_the_next_use(file):
    first, first_text = add(file)
    store = KeyStore(file.path)
    assert store.find(first_text) == first
    second, second_text = add(file)
    assert store.find(second_text) == second
    file.remove(first.id)
    assert store.find(first_text) is None
    assert store.get(second.id) == second


def test_file_is_read_only_after_a_change(file, monkeypatch):
    reads = Counter()

    def read(self, original=KeyFile.read):
        reads["read"] += 1
        return original(self)

    monkeypatch.setattr(KeyFile, "read", read)
    _, text = add(file)
    store = KeyStore(file.path)
    reads.clear()
    for _ in range(5):
        assert store.find(text)
    assert reads["read"] == 1


@pytest.mark.parametrize("content", [None, b"not JSON"])
def test_no_key_is_accepted_without_a_valid_file(file, content, caplog):
    _, text = add(file)
    store = KeyStore(file.path)
    assert store.find(text)
    saved = file.path.read_bytes()
    file.path.unlink()
    if content:
        file.path.write_bytes(content)
    for _ in range(3):
        with pytest.raises(KeyFileError):
            store.find(text)
    assert len(caplog.records) == 1
    file.path.write_bytes(saved)
    os.utime(file.path, ns=(1, 1))
    assert store.find(text)


@pytest.mark.parametrize("wrong", ["", "malformed", "tsm_0123456789ab_" + "a" * 43])
def test_unknown_texts_have_no_key(file, wrong):
    _, text = add(file)
    store = KeyStore(file.path)
    assert store.find(wrong) is None
    assert store.find(text[:-1] + ("A" if text[-1] != "A" else "B")) is None


def test_rate_allows_a_second_of_requests_at_once(file):
    key, _ = add(file, rate=4)
    now = [100.0]
    store = KeyStore(file.path, lambda: now[0])
    assert store.get(key.id) == key
    assert [store.is_within_rate(key) for _ in range(6)] == [True] * 4 + [False] * 2
    now[0] += 0.5
    assert [store.is_within_rate(key) for _ in range(3)] == [True, True, False]
    now[0] += 60
    assert sum(store.is_within_rate(key) for _ in range(10)) == 4


def test_keys_do_not_share_a_rate_and_keep_it_when_the_file_changes(file):
    first, second = add(file, rate=1)[0], add(file, rate=1)[0]
    unlimited, _ = add(file)
    store = KeyStore(file.path, lambda: 0.0)
    assert store.get(first.id)
    assert [store.is_within_rate(key) for key in (first, second, first)] == [True, True, False]
    add(file)
    assert store.get(first.id)
    assert not store.is_within_rate(first)
    assert all(store.is_within_rate(unlimited) for _ in range(100))
