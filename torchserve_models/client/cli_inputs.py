"""What `predict` is to send: images, texts, folders, patterns, lists of paths and JSON Lines.

The kind of an input is found out by its file name and its first bytes. Where that leaves a doubt, reading it raises
an error that asks for --input-format: a list of paths or a JSON file is never summarized as if it were a text.
"""

import glob
import json
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import BinaryIO, Literal, get_args

from torchserve_models.client.cli_requests import Request, is_image, parse_request
from torchserve_models.client.cli_texts import read_lines, read_text
from torchserve_models.client.errors import InvalidRequest, InvalidText

Format = Literal["auto", "image", "text", "paths", "jsonl"]
FORMATS: tuple[str, ...] = get_args(Format)
STDIN = "-"
IMAGE_SUFFIXES = frozenset(
    """
    .jpg .jpeg .jfif .png .gif .bmp .tif .tiff .webp .avif .heic .ico .pbm .pgm .ppm .pnm .pfm
    """.split()  # noqa: SIM905
)
TEXT_SUFFIXES = frozenset((".txt", ".text", ".md"))
JSONL_SUFFIXES = frozenset((".jsonl", ".ndjson"))
ASK = "say with --input-format what it is: image, text, paths (a path in each line) or jsonl (a request in each line)"
HEAD_BYTES = 64
CHECKED_LINES = 20


@dataclass(frozen=True)
class Source:
    """One request that is still to be read. `read` raises OSError or TorchServeError."""

    name: str
    read: Callable[[], Request]


@dataclass(frozen=True)
class Expanded:
    """The requests of one argument. `total` is None where it is not known before they are read.

    `is_bulk`: a folder, a pattern or a list, not a single image or text. `note` tells what is left out.
    """

    sources: Iterable[Source]
    total: int | None = 1
    is_bulk: bool = False
    note: str = ""


def expand(argument: str, kind: Format) -> Expanded:
    """Nothing is read yet, but the names in a folder."""
    if argument == STDIN:
        if kind in ("paths", "jsonl"):
            return Expanded(_lines(argument, kind), None, is_bulk=True)
        return _single(argument, partial(_read_file, argument, kind))
    path = Path(argument)
    if exists(argument):
        if path.is_dir():
            return _folder(path, kind)
        if kind == "paths" or kind == "jsonl" or (kind == "auto" and path.suffix.lower() in JSONL_SUFFIXES):
            chosen: Format = "paths" if kind == "paths" else "jsonl"
            return Expanded(_lines(argument, chosen), _count_lines(path), is_bulk=True)
        return _single(argument, partial(_read_file, argument, kind))
    if glob.has_magic(argument) and (found := sorted(glob.glob(argument, recursive=True))):  # noqa: PTH207
        return _pattern(argument, found, kind)
    return _single(argument, partial(_read_argument, argument, kind))


def merge(parts: Sequence[Expanded]) -> Expanded:
    """The requests of several arguments, in order."""
    totals = [part.total for part in parts]
    return Expanded(
        chain.from_iterable(part.sources for part in parts),
        None if None in totals else sum(total or 0 for total in totals),
        is_bulk=any(part.is_bulk for part in parts),
        note="\n".join(part.note for part in parts if part.note),
    )


def _pattern(pattern: str, found: Sequence[str], kind: Format) -> Expanded:
    """The files that match. What is below a folder that matches is not sent, unless the pattern says `**`."""
    files = [name for name in found if not Path(name).is_dir()]
    skipped = 0 if "**" in pattern else len(found) - len(files)
    note = f"{pattern}: folders left out: {skipped}" if skipped else ""
    merged = merge([expand(name, kind) for name in files])
    return replace(merged, is_bulk=True, note="\n".join(filter(None, (note, merged.note))))


def _single(name: str, read: Callable[[], Request]) -> Expanded:
    return Expanded([Source(name, read)])


def _files(names: list[str], kind: Format, where: str, note: str, failed: list[Source]) -> Expanded:
    """The files of a folder, and an error for each folder in it that cannot be read."""
    if kind in ("paths", "jsonl"):
        return _failing(where, f"{where} is a folder; --input-format {kind} is for a file")
    if not names and not failed:
        return _failing(where, f"there is no image and no text in {where}", note)
    sources = [*failed, *(Source(name, partial(_read_file, name, kind)) for name in names)]
    return Expanded(sources, len(sources), is_bulk=True, note=note)


def _failing(name: str, message: str, note: str = "") -> Expanded:
    def read() -> Request:
        raise InvalidRequest(message)

    return Expanded([Source(name, read)], is_bulk=True, note=note)


def _folder(folder: Path, kind: Format) -> Expanded:
    """The files of one kind, folders below it included. Hidden ones are left out, others are counted in the note."""
    chosen: dict[str, list[str]] = {"image": [], "text": []}
    others: list[str] = []
    unreadable: list[OSError] = []
    for parent, folders, names in os.walk(folder, onerror=unreadable.append):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            if not name.startswith("."):
                path = Path(parent, name)
                chosen.get(_kind_in_folder(path, kind), others).append(str(path))
    if kind in chosen:
        others += [name for other, names in chosen.items() if other != kind for name in names]
        names = chosen[kind]
    else:
        if all(chosen.values()):
            counts = " and ".join(f"{len(names)} {other}s" for other, names in chosen.items())
            return _failing(str(folder), f"{folder} has {counts}; use --input-format image or text")
        names = chosen["image"] or chosen["text"]
    note = f"{folder}: left out as of another kind: {len(others)}" if others else ""
    failed = [Source(str(error.filename), partial(_raise, error)) for error in unreadable]
    return _files(names, kind, str(folder), note, failed)


def _kind_in_folder(path: Path, kind: Format) -> str:
    suffix = path.suffix.lower()
    if suffix in IMAGE_SUFFIXES:
        return "image"
    if suffix in TEXT_SUFFIXES:
        return "text"
    try:
        with path.open("rb") as file:
            if is_image(file.read(HEAD_BYTES)):
                return "image"
    except OSError:
        pass
    return "text" if kind == "text" and suffix not in JSONL_SUFFIXES else "other"


def _lines(name: str, kind: Format) -> Iterator[Source]:
    """A source for each line that is not blank, read one after the other. A file that cannot be read is one error."""
    try:
        with _open(name) as file:
            for number, line in enumerate(read_lines(file), start=1):
                if not line.strip():
                    continue
                where = f"{'standard input' if name == STDIN else name}:{number}"
                if kind == "jsonl":
                    yield Source(where, partial(parse_request, line, where))
                else:
                    yield _listed(line, where)
    except (OSError, InvalidText) as error:
        yield Source(name, partial(_raise, error))


def _listed(line: bytes, where: str) -> Source:
    """The file that a line of a list names."""
    path = os.fsdecode(line)
    return Source(path, partial(_read_listed, path, where))


def _read_listed(path: str, where: str) -> Request:
    if Path(path).is_dir():
        raise InvalidRequest(f"{where} names a folder; give folders as arguments")
    return _read_file(path, "auto", "give it as an argument, with --input-format")


def _raise(error: Exception) -> Request:
    raise error


def _open(name: str) -> AbstractContextManager[BinaryIO]:
    return nullcontext(sys.stdin.buffer) if name == STDIN else open(name, "rb")


def _count_lines(path: Path) -> int | None:
    """Of a regular file; None for a pipe, which can be read only once."""
    try:
        if not path.is_file():
            return None
        with path.open("rb") as file:
            return sum(1 for line in read_lines(file) if line.strip())
    except (OSError, InvalidText):
        return None


def _read_file(name: str, kind: Format, way_out: str = ASK) -> Request:
    """An image or a text. Raises OSError, InvalidRequest where its kind is in doubt, InvalidText."""
    try:
        with _open(name) as file:
            content = file.read()
    except ValueError:
        raise InvalidRequest(f"{name!r} is not a file name") from None
    if kind == "image":
        return Request(content)
    suffix = Path(name).suffix.lower()
    if kind == "text":
        return Request(read_text(content))
    if suffix in IMAGE_SUFFIXES or is_image(content[:HEAD_BYTES]):
        return Request(content)
    if suffix in JSONL_SUFFIXES:
        raise InvalidRequest(f"{name} is a file of many requests; give it as an argument")
    if suffix and suffix not in TEXT_SUFFIXES:
        raise InvalidRequest(f"{name} may be of any kind; {way_out}")
    text = read_text(content)
    if what := _other_kind(text):
        raise InvalidRequest(f"{'standard input' if name == STDIN else name} looks like {what}; {way_out}")
    return Request(text)


def _other_kind(text: str) -> str:
    """What a text is more likely to be, or nothing."""
    if text.lstrip()[:1] in ("{", "["):
        first = text.lstrip().partition("\n")[0]
        if _is_json(first) or _is_json(text):
            return "JSON"
    lines = list(islice((line for line in text.splitlines() if line.strip()), CHECKED_LINES))
    return "a list of paths" if lines and all(_is_path(line) for line in lines) else ""


def _is_json(text: str) -> bool:
    try:
        return isinstance(json.loads(text), (dict, list))
    except (ValueError, RecursionError):
        return False


def _is_path(line: str) -> bool:
    has_known_suffix = Path(line).suffix.lower() in IMAGE_SUFFIXES | TEXT_SUFFIXES | JSONL_SUFFIXES
    return (has_known_suffix and not re.search(r"\s", line.strip())) or exists(line)


def exists(name: str) -> bool:
    """Whether there is such a file. A long text is no file name, and asking for it is an error of its own."""
    try:
        return Path(name).exists()
    except (OSError, ValueError):
        return False


def _read_argument(argument: str, kind: Format) -> Request:
    """A text of the command line. What looks like the name of a file that is missing is an error."""
    if kind == "text":
        return Request(argument)
    is_one_word = argument.isascii() and not re.search(r"\s", argument)
    has_known_suffix = Path(argument[-255:]).suffix.lower() in IMAGE_SUFFIXES | TEXT_SUFFIXES | JSONL_SUFFIXES
    if kind != "auto" or has_known_suffix or is_one_word:
        if glob.has_magic(argument):
            raise InvalidRequest(f"no file matches {argument}; --input-format text sends it as a text")
        hint = "" if has_known_suffix else "; --input-format text sends it as a text"
        raise FileNotFoundError(2, f"No such file{hint}", argument)
    if what := _other_kind(argument):
        raise InvalidRequest(f"{argument[:60]!r} looks like {what}; {ASK}")
    return Request(argument)
