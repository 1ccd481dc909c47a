"""Expand the arguments of `predict` into requests.

An argument is an image, a text, a folder, a glob pattern, a list of paths or JSON Lines.
"""

import glob
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from pathlib import Path

from torchserve_models.cli.prediction.input_reader import (
    JSONL_SUFFIXES,
    STDIN,
    Format,
    detect_file_type,
    exists,
    open_input,
    read_argument,
    read_file,
)
from torchserve_models.cli.prediction.requests import Request, parse_request
from torchserve_models.cli.prediction.texts import read_lines
from torchserve_models.client.errors import InvalidRequest, InvalidText


@dataclass(frozen=True)
class LazyRequest:
    """A request whose file is not read yet.

    Attributes:
        name: Name of the input in the output of `predict`.
        read: Reads the request. Raises OSError or TorchServeError.
    """

    name: str
    read: Callable[[], Request]


@dataclass(frozen=True)
class RequestList:
    """The requests of one or several arguments.

    Attributes:
        requests: The requests, in order.
        total: Number of requests; None if the inputs must be read to count them.
        is_bulk: Whether an argument is a folder, a pattern or a list instead of a single image or text.
        note: Message about skipped files and folders; empty if none were skipped.
    """

    requests: Iterable[LazyRequest]
    total: int | None = 1
    is_bulk: bool = False
    note: str = ""


def expand_argument(argument: str, input_format: Format) -> RequestList:
    """Return the requests of one argument. Files are read later; only folders are listed now."""
    if argument == STDIN:
        if input_format in ("paths", "jsonl"):
            return RequestList(_lines(argument, input_format), None, is_bulk=True)
        return _single_request(argument, partial(read_file, argument, input_format))
    path = Path(argument)
    if exists(argument):
        if path.is_dir():
            return _folder(path, input_format)
        is_jsonl_file = input_format == "auto" and path.suffix.lower() in JSONL_SUFFIXES
        if is_jsonl_file or input_format in ("paths", "jsonl"):
            list_format: Format = "jsonl" if is_jsonl_file else input_format
            return RequestList(_lines(argument, list_format), _count_lines(path), is_bulk=True)
        return _single_request(argument, partial(read_file, argument, input_format))
    if glob.has_magic(argument) and (paths := sorted(glob.glob(argument, recursive=True))):  # noqa: PTH207
        return _pattern(argument, paths, input_format)
    return _single_request(argument, partial(read_argument, argument, input_format))


def merge_requests(parts: Sequence[RequestList]) -> RequestList:
    """Return the requests of several arguments, in order."""
    totals = [part.total for part in parts]
    return RequestList(
        chain.from_iterable(part.requests for part in parts),
        None if None in totals else sum(total or 0 for total in totals),
        is_bulk=any(part.is_bulk for part in parts),
        note="\n".join(part.note for part in parts if part.note),
    )


def _pattern(pattern: str, paths: Sequence[str], input_format: Format) -> RequestList:
    """Return the files that match a glob pattern. Matching folders are searched only if the pattern contains `**`."""
    files = [name for name in paths if not Path(name).is_dir()]
    skipped = 0 if "**" in pattern else len(paths) - len(files)
    note = f"{pattern}: skipped {_count(skipped, 'folder')}" if skipped else ""
    merged = merge_requests([expand_argument(name, input_format) for name in files])
    return replace(merged, is_bulk=True, note="\n".join(filter(None, (note, merged.note))))


def _single_request(name: str, read: Callable[[], Request]) -> RequestList:
    return RequestList([LazyRequest(name, read)])


def _count(number: int, noun: str) -> str:
    """Return a number with its noun, in the plural unless the number is 1."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _folder_files(
    names: list[str], input_format: Format, folder: str, note: str, failed: list[LazyRequest]
) -> RequestList:
    """Return the files of a folder, and an error for each subfolder that cannot be read."""
    if input_format in ("paths", "jsonl"):
        return _error_source(folder, f"{folder} is a folder; --input-format {input_format} requires a file")
    if not names and not failed:
        return _error_source(folder, f"the folder {folder} contains no image or text file", note)
    requests = [*failed, *(LazyRequest(name, partial(read_file, name, input_format)) for name in names)]
    return RequestList(requests, len(requests), is_bulk=True, note=note)


def _error_source(name: str, message: str, note: str = "") -> RequestList:
    """Return a request that raises InvalidRequest when it is read."""

    def read() -> Request:
        raise InvalidRequest(message)

    return RequestList([LazyRequest(name, read)], is_bulk=True, note=note)


def _folder(folder: Path, input_format: Format) -> RequestList:
    """Return the images or the texts of a folder and its subfolders.

    Hidden files and folders are ignored. `note` of the result has the number of skipped files of other types.
    """
    names_by_type: dict[str, list[str]] = {"image": [], "text": []}
    skipped_names: list[str] = []
    unreadable: list[OSError] = []
    for parent, folders, names in os.walk(folder, onerror=unreadable.append):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            if not name.startswith("."):
                path = Path(parent, name)
                names_by_type.get(detect_file_type(path, input_format), skipped_names).append(str(path))
    if input_format in names_by_type:
        skipped_names += [
            name for file_type, names in names_by_type.items() if file_type != input_format for name in names
        ]
        names = names_by_type[input_format]
    else:
        if all(names_by_type.values()):
            counts = " and ".join(_count(len(names), file_type) for file_type, names in names_by_type.items())
            return _error_source(str(folder), f"{folder} has {counts}; set --input-format to image or text")
        names = names_by_type["image"] or names_by_type["text"]
    note = f"{folder}: skipped {_count(len(skipped_names), 'file')} of another type" if skipped_names else ""
    failed = [LazyRequest(str(error.filename), partial(_raise, error)) for error in unreadable]
    return _folder_files(names, input_format, str(folder), note, failed)


def _lines(name: str, input_format: Format) -> Iterator[LazyRequest]:
    """Yield a request for each line that is not blank. A file that cannot be read yields one error."""
    try:
        with open_input(name) as file:
            for number, line in enumerate(read_lines(file), start=1):
                if not line.strip():
                    continue
                where = f"{'standard input' if name == STDIN else name}:{number}"
                if input_format == "jsonl":
                    yield LazyRequest(where, partial(parse_request, line, where))
                else:
                    yield _listed_file(line, where)
    except (OSError, InvalidText) as error:
        yield LazyRequest(name, partial(_raise, error))


def _listed_file(line: bytes, where: str) -> LazyRequest:
    """Return the request of the file that a line of a list names."""
    path = os.fsdecode(line)
    return LazyRequest(path, partial(_read_listed_file, path, where))


def _read_listed_file(path: str, where: str) -> Request:
    if Path(path).is_dir():
        raise InvalidRequest(f"{where} names a folder; pass folders as arguments")
    return read_file(path, "auto", "pass the file as an argument and set --input-format")


def _raise(error: Exception) -> Request:
    """Raise an error that listing the inputs caught, when the request is read."""
    raise error


def _count_lines(path: Path) -> int | None:
    """Return the number of lines of a regular file, or None for a pipe. Blank lines are ignored."""
    try:
        if not path.is_file():
            return None
        with path.open("rb") as file:
            return sum(1 for line in read_lines(file) if line.strip())
    except (OSError, InvalidText):
        return None
