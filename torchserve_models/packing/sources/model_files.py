"""Selection, digests and validation of model files."""

import hashlib
import json
import re
import struct
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torchserve_models.packing.errors import InvalidSource, explain_os_errors
from torchserve_models.packing.sources.other_formats import (
    ADAPTER,
    adapter_error,
    missing_config_error,
    missing_safetensors_error,
)
from torchserve_models.packing.tasks import TaskSpec

CONFIG = "config.json"
CARD = "README.md"
TOKENIZER_CONFIG = "tokenizer_config.json"
WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
PICKLE = "pytorch_model.bin"
PICKLE_INDEX = "pytorch_model.bin.index.json"

_BYTES = "ByT5Tokenizer"
_CHUNK_BYTES = 1 << 20
_SHARD = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*\.(safetensors|bin)")
_PICKLES = (".bin", ".pt", ".pth", ".pth.tar", ".tar", ".ckpt", ".h5", ".msgpack", ".pkl")
_MAX_HEADER_BYTES = 100_000_000  # the limit of the safetensors library
_LFS_POINTER = b"version https://git-lfs.github.com/spec/"


@dataclass(frozen=True)
class ModelFile:
    """A file of a model.

    Attributes:
        name: Path in the archive below model/.
        path: The file.
        size: Size in bytes.
        sha256: Expected digest.
    """

    name: str
    path: Path
    size: int
    sha256: str


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_and_size(path: Path) -> tuple[str, int]:
    """Return a file's digest and its size in bytes. Raises PackingError if the file cannot be read."""
    with explain_os_errors(f"reading {path}"):
        return sha256_of(path), path.stat().st_size


def git_blob_id(path: Path) -> str:
    """Return the git blob ID of a file: SHA-1 of a header and the content."""
    digest = hashlib.sha1(b"blob %d\0" % path.stat().st_size, usedforsecurity=False)
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def check_is_model(names: Collection[str], source: str) -> None:
    """Raise InvalidSource for an adapter (LoRA), a single checkpoint or anything else that is not a model.

    `names` may include config.json files in subfolders, with a slash.
    """
    if ADAPTER in names:
        raise adapter_error(source, bool({WEIGHTS, INDEX, PICKLE, PICKLE_INDEX}.intersection(names)))
    if CONFIG not in names:
        raise missing_config_error(names, source)


def weight_files(names: Collection[str], source: str, pickled: bool = False) -> str:
    """Return the name of the weights: model.safetensors, or the index of a sharded model.

    With `pickled`, pytorch_model.bin or its index is returned if there are no safetensors.

    Raises:
        NoSafetensors: Weights are missing, or exist only in formats that can run code when loaded.
    """
    known = (WEIGHTS, INDEX, PICKLE, PICKLE_INDEX) if pickled else (WEIGHTS, INDEX)
    for name in known:
        if name in names:
            return name
    raise missing_safetensors_error(names, source, WEIGHTS, () if pickled else (PICKLE, PICKLE_INDEX))


def tensor_files(weights: str, index: Path | None, names: Collection[str], source: str) -> list[str]:
    """Return the names of the files with tensors: `weights`, or the shards listed in the index file."""
    return [weights] if index is None else _read_shard_names(index, weights, names, source)


def is_index(weights: str) -> bool:
    return weights in (INDEX, PICKLE_INDEX)


def is_pickle(name: str) -> bool:
    return name.endswith(_PICKLES) or name == PICKLE_INDEX


def _read_shard_names(index: Path, name: str, names: Collection[str], source: str) -> list[str]:
    """Return the shards listed in an index. Raises InvalidSource if a shard is not in `names`."""
    weight_map = read_json(index, source).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise InvalidSource(f"{name} of {source} has no weight_map. Get the file again.")
    shards = sorted({str(shard) for shard in weight_map.values()})
    kind = ".safetensors" if name == INDEX else ".bin"
    for shard in shards:
        if not _SHARD.fullmatch(shard) or ".." in shard or not shard.endswith(kind):
            raise InvalidSource(
                f"{name} of {source} names {shard!r}, which is not a valid name of a {kind} file."
            )
        if shard not in names:
            raise InvalidSource(f"{name} of {source} names {shard}, which is missing. Add that file.")
    return shards


def side_files(
    names: Collection[str],
    task: TaskSpec,
    source: str,
    config: Mapping[str, Any],
    read_tokenizer_config: Callable[[], Mapping[str, Any]],
) -> list[str]:
    """Return the preprocessor or tokenizer files among `names`, including config.json.

    No file besides config.json is required for timm models, whose config.json has the image transforms. Byte
    tokenizers (ByT5) require no vocabulary. `read_tokenizer_config` is called only if required files seem to be
    missing.

    Raises:
        InvalidSource: Required files are missing.
    """
    if "pretrained_cfg" not in config and not any(
        all(name in names for name in group) for group in task.needs_one_of
    ):
        classes = [config.get("tokenizer_class")]
        if TOKENIZER_CONFIG in names and TOKENIZER_CONFIG in task.side_files:
            classes.append(read_tokenizer_config().get("tokenizer_class"))
            if _BYTES in classes:
                return sorted(task.side_files.intersection(names) | {CONFIG})
        groups = ", or ".join(" + ".join(group) for group in task.needs_one_of)
        raise InvalidSource(
            f"{source} is missing the preprocessor or tokenizer files for {task.name}: {groups}. Create them with "
            f"`{task.side_class}.from_pretrained(ORIGINAL).save_pretrained(folder)`, where ORIGINAL is the model "
            "that this one was fine-tuned from."
        )
    return sorted(task.side_files.intersection(names) | {CONFIG})


def read_json(path: Path, source: str) -> dict[str, Any]:
    """Read a JSON object from a file of `source`. Raises InvalidSource."""
    try:
        with explain_os_errors(f"reading {path.name} of {source}"):
            raw = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        _reject_lfs_pointer(path, source)
        raise InvalidSource(f"{path.name} of {source} is not valid JSON: {error}.") from error
    if not isinstance(raw, dict):
        raise InvalidSource(f"{path.name} of {source} is not a JSON object.")
    return raw


def check_safetensors(path: Path, source: str) -> None:
    """Raise InvalidSource if the size of a safetensors file does not match its header. Tensors are not read.

    Format: 8 bytes with the length of the header (little-endian), a JSON header with the `data_offsets` of each
    tensor, and the data.
    """
    size = path.stat().st_size
    _reject_lfs_pointer(path, source)
    with path.open("rb") as file:
        start = file.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else _MAX_HEADER_BYTES + 1
        if length > min(_MAX_HEADER_BYTES, size - 8):
            raise InvalidSource(
                f"{path.name} of {source} is not a safetensors file, or is truncated. Get the file again."
            )
        file.seek(8)
        header = file.read(length)
    if _read_data_length(header) != size - 8 - length:
        raise InvalidSource(
            f"{path.name} of {source} is damaged: its size does not match its safetensors header. Get the file again."
        )


def _reject_lfs_pointer(path: Path, source: str) -> None:
    with path.open("rb") as file:
        if file.read(len(_LFS_POINTER)) == _LFS_POINTER:
            raise InvalidSource(
                f"{path.name} of {source} is a Git LFS pointer, not the file: run `git lfs pull` in that folder."
            )


def _read_data_length(header: bytes) -> int | None:
    """Return the number of data bytes in a safetensors header, or None if the header is invalid."""
    try:
        entries = json.loads(header)
        ends = [entry["data_offsets"][1] for name, entry in entries.items() if name != "__metadata__"]
        return max(map(int, ends), default=0)
    except (ValueError, KeyError, IndexError, TypeError, AttributeError):
        return None


def license_of_card(card: Mapping[str, Any]) -> str | None:
    """Return the license in the front matter of a model card, as an identifier or name, or None."""
    license = card.get("license")
    if license == "other" and isinstance(card.get("license_name"), str):
        return str(card["license_name"])
    if isinstance(license, list):
        return ", ".join(map(str, license)) or None
    return license if isinstance(license, str) and license else None
