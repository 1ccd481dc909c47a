"""The files of a model: which of a source's are needed, their digests, and whether a weight file is one."""

import hashlib
import json
import re
import struct
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torchserve_models.packing.errors import BadSource, explained
from torchserve_models.packing.sources.other_formats import ADAPTER, adapter, no_config, no_safetensors
from torchserve_models.packing.tasks import Task

CONFIG = "config.json"
CARD = "README.md"
TOKENIZER_CONFIG = "tokenizer_config.json"
WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
PICKLE = "pytorch_model.bin"
PICKLE_INDEX = "pytorch_model.bin.index.json"

_BYTES = "ByT5Tokenizer"
_CHUNK = 1 << 20
_SHARD = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*\.(safetensors|bin)")
_PICKLES = (".bin", ".pt", ".pth", ".pth.tar", ".tar", ".ckpt", ".h5", ".msgpack", ".pkl")
_LONGEST_HEADER = 100_000_000  # the limit of the safetensors library
_LFS_POINTER = b"version https://git-lfs.github.com/spec/"


@dataclass(frozen=True)
class ModelFile:
    """A file of a model as it goes into the archive: its name there below model/, and the bytes it must have."""

    name: str
    path: Path
    size: int
    sha256: str


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_and_size(path: Path) -> tuple[str, int]:
    """Return a file's digest and its size in bytes. Raises PackingError when it cannot be read."""
    with explained(f"reading {path}"):
        return sha256_of(path), path.stat().st_size


def git_blob_id(path: Path) -> str:
    """The id that git, and with it the hub, gives a small file: sha1 over a header and the content."""
    digest = hashlib.sha1(b"blob %d\0" % path.stat().st_size, usedforsecurity=False)
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def check_is_model(names: Collection[str], source: str) -> None:
    """Raises BadSource for an adapter (LoRA), a lone checkpoint or no model at all, with the way to one.

    `names` may have those of config.json in subfolders, with a slash.
    """
    if ADAPTER in names:
        raise adapter(source, bool({WEIGHTS, INDEX, PICKLE, PICKLE_INDEX}.intersection(names)))
    if CONFIG not in names:
        raise no_config(names, source)


def weight_files(names: Collection[str], source: str, pickled: bool = False) -> str:
    """Which of a source's `names` leads to its weights: model.safetensors, or the index of a sharded model.

    With `pickled`, pytorch_model.bin and its index where there is neither; they are then to be converted.
    Raises NoSafetensors, which says so when there are weights in a format that can run code when opened.
    """
    known = (WEIGHTS, INDEX, PICKLE, PICKLE_INDEX) if pickled else (WEIGHTS, INDEX)
    for name in known:
        if name in names:
            return name
    raise no_safetensors(names, source, WEIGHTS, () if pickled else (PICKLE, PICKLE_INDEX))


def tensor_files(weights: str, index: Path | None, names: Collection[str], source: str) -> list[str]:
    """The files with the tensors: `weights` itself, or those that it names where it is an index, which lies there."""
    return [weights] if index is None else _shards_of(index, weights, names, source)


def is_index(weights: str) -> bool:
    return weights in (INDEX, PICKLE_INDEX)


def is_pickle(name: str) -> bool:
    return name.endswith(_PICKLES) or name == PICKLE_INDEX


def _shards_of(index: Path, name: str, names: Collection[str], source: str) -> list[str]:
    """The files that an index names, all of them present in `names`."""
    weight_map = read_json(index, source).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise BadSource(f"{name} of {source} has no weight_map.")
    shards = sorted({str(shard) for shard in weight_map.values()})
    kind = ".safetensors" if name == INDEX else ".bin"
    for shard in shards:
        if not _SHARD.fullmatch(shard) or ".." in shard or not shard.endswith(kind):
            raise BadSource(f"{name} of {source} names {shard!r}, which is not a plain {kind[1:]} file name.")
        if shard not in names:
            raise BadSource(f"{name} of {source} names {shard}, which is not there; get that file as well.")
    return shards


def side_files(
    names: Collection[str],
    task: Task,
    source: str,
    config: Mapping[str, Any],
    read_tokenizer_config: Callable[[], Mapping[str, Any]],
) -> list[str]:
    """The preprocessor or tokenizer files among `names`, config.json included; BadSource when they do not suffice.

    timm's config.json says itself how images are prepared, and tokenizers of bytes (ByT5) have no vocabulary.
    `read_tokenizer_config` is called only where no other file suffices and there is a tokenizer_config.json.
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
        raise BadSource(
            f"{source} lacks what a model for {task.name} needs beside its weights: {groups}. "
            f"`{task.side_class}.from_pretrained(ORIGINAL).save_pretrained(folder)` writes it; ORIGINAL is the model "
            "that this one was trained from."
        )
    return sorted(task.side_files.intersection(names) | {CONFIG})


def read_json(path: Path, source: str) -> dict[str, Any]:
    """A JSON object from a file of `source`."""
    try:
        with explained(f"reading {path.name} of {source}"):
            raw = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        _check_no_pointer(path, source)
        raise BadSource(f"{path.name} of {source} is not valid JSON: {error}.") from error
    if not isinstance(raw, dict):
        raise BadSource(f"{path.name} of {source} is not a JSON object.")
    return raw


def check_safetensors(path: Path, source: str) -> None:
    """Raises BadSource unless the file's header and length fit together; the tensors are not read.

    The format: 8 bytes little-endian header length, a JSON header with every tensor's `data_offsets`, the data.
    """
    size = path.stat().st_size
    _check_no_pointer(path, source)
    with path.open("rb") as file:
        start = file.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else _LONGEST_HEADER + 1
        if length > min(_LONGEST_HEADER, size - 8):
            raise BadSource(f"{path.name} of {source} is not a safetensors file, or is cut off.")
        file.seek(8)
        header = file.read(length)
    if _data_length(header) != size - 8 - length:
        raise BadSource(
            f"{path.name} of {source} is not a whole safetensors file: its header and its length differ."
        )


def _check_no_pointer(path: Path, source: str) -> None:
    with path.open("rb") as file:
        if file.read(len(_LFS_POINTER)) == _LFS_POINTER:
            raise BadSource(
                f"{path.name} of {source} is a Git LFS pointer, not the file: run `git lfs pull` in that folder."
            )


def _data_length(header: bytes) -> int | None:
    """How many bytes of data a safetensors header announces; None for a header that is none."""
    try:
        entries = json.loads(header)
        ends = [entry["data_offsets"][1] for name, entry in entries.items() if name != "__metadata__"]
        return max(map(int, ends), default=0)
    except (ValueError, KeyError, IndexError, TypeError, AttributeError):
        return None


def license_of_card(card: Mapping[str, Any]) -> str | None:
    """The license in the front matter of a model card: an identifier, or the name of one that has none."""
    license = card.get("license")
    if license == "other" and isinstance(card.get("license_name"), str):
        return str(card["license_name"])
    if isinstance(license, list):
        return ", ".join(map(str, license)) or None
    return license if isinstance(license, str) and license else None
