"""The file that stores API keys."""

import json
import stat
from concurrent.futures import ThreadPoolExecutor

import pytest

from torchserve_models.gateway.keys.api_key import ApiKey
from torchserve_models.gateway.keys.key_file import KeyFile, KeyFileError


def create(name="shop"):
    return ApiKey.create(name, ("inference",))[0]


def test_keys_are_added_and_removed(tmp_path):
    file, first, second = KeyFile(tmp_path / "keys.json"), create("first"), create("second")
    file.add(first)
    file.add(second)
    assert file.read() == {first.id: first, second.id: second}
    assert stat.S_IMODE(file.path.stat().st_mode) == 0o600
    assert file.remove(first.id) == first
    assert file.read() == {second.id: second}
    with pytest.raises(KeyFileError, match="has no key with the id"):
        file.remove(first.id)
    assert [path.name for path in tmp_path.iterdir()] == ["keys.json"]


def test_concurrent_changes_are_all_kept(tmp_path):
    path, keys = tmp_path / "keys.json", [create() for _ in range(20)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda key: KeyFile(path).add(key), keys))
    assert KeyFile(path).read() == {key.id: key for key in keys}


def test_missing_file_is_an_error_with_a_hint(tmp_path):
    with pytest.raises(KeyFileError, match=r"cannot read the key file .*keys create"):
        KeyFile(tmp_path / "keys.json").read()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is not valid"),
        (b"\xff", "is not valid"),
        (b"[]", "is not valid"),
        (b"{}", "'version' is missing"),
        (b'{"version": 1}', "'keys' is missing"),
        (b'{"version": 2, "keys": []}', "has version 2, not 1"),
        (b'{"version": 1, "keys": [1]}', "is not valid"),
        (b'{"version": 1, "keys": [{"id": "a"}]}', "is missing"),
    ],
)
def test_invalid_file_is_rejected_and_not_replaced(tmp_path, content, message):
    path = tmp_path / "keys.json"
    path.write_bytes(content)
    with pytest.raises(KeyFileError, match=message):
        KeyFile(path).read()
    with pytest.raises(KeyFileError, match=message):
        KeyFile(path).add(create())
    assert path.read_bytes() == content


def test_file_is_readable_json(tmp_path):
    file, key = KeyFile(tmp_path / "keys.json"), create("caf\u00e9")
    file.add(key)
    (entry,) = json.loads(file.path.read_text(encoding="utf-8"))["keys"]
    assert (entry["id"], entry["name"], entry["scopes"]) == (key.id, "caf\u00e9", ["inference"])
