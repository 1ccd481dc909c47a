"""Read an input of `predict`, and detect whether it is an image or a text.

The type is detected from the file name and first bytes. Ambiguous inputs raise an error that asks for --input-format.
"""

import glob
import json
import re
import sys
from contextlib import AbstractContextManager, nullcontext
from itertools import islice
from pathlib import Path
from typing import BinaryIO, Literal

from torchserve_models.cli.prediction.requests import Request, is_image
from torchserve_models.cli.prediction.texts import read_text
from torchserve_models.client.errors import InvalidRequest

Format = Literal["auto", "image", "text", "paths", "jsonl"]
STDIN = "-"
IMAGE_SUFFIXES = frozenset(
    """
    .jpg .jpeg .jfif .png .gif .bmp .tif .tiff .webp .avif .heic .ico .pbm .pgm .ppm .pnm .pfm
    """.split()  # noqa: SIM905
)
TEXT_SUFFIXES = frozenset((".txt", ".text", ".md"))
JSONL_SUFFIXES = frozenset((".jsonl", ".ndjson"))
KNOWN_SUFFIXES = IMAGE_SUFFIXES | TEXT_SUFFIXES | JSONL_SUFFIXES
INPUT_FORMAT_HINT = "set --input-format to image, text, paths or jsonl"
HEAD_BYTES = 64
MAX_CHECKED_LINES = 20


def read_file(name: str, input_format: Format, hint: str = INPUT_FORMAT_HINT) -> Request:
    """Read an image or a text.

    Args:
        name: Name of the file, or `-` for standard input.
        input_format: Input format; `auto` to detect it.
        hint: What the user can do if the format cannot be detected.

    Raises:
        OSError: The file cannot be read.
        InvalidRequest: The format cannot be detected.
        InvalidText: The text has an unknown encoding.
    """
    try:
        with open_input(name) as file:
            content = file.read()
    except ValueError:
        raise InvalidRequest(f"{name!r} is not a valid file name") from None
    if input_format == "image":
        return Request(content)
    suffix = Path(name).suffix.lower()
    if input_format == "text":
        return Request(read_text(content))
    if suffix in IMAGE_SUFFIXES or is_image(content[:HEAD_BYTES]):
        return Request(content)
    if suffix in JSONL_SUFFIXES:
        raise InvalidRequest(f"{name} is a JSON Lines file; pass it as an argument")
    if suffix and suffix not in TEXT_SUFFIXES:
        raise InvalidRequest(f"cannot detect the type of {name}; {hint}")
    text = read_text(content)
    if detected := _detect_format(text):
        raise InvalidRequest(f"{'standard input' if name == STDIN else name} looks like {detected}; {hint}")
    return Request(text)


def read_argument(argument: str, input_format: Format) -> Request:
    """Return the request of a text on the command line.

    Raises:
        FileNotFoundError: The argument looks like a file name.
        InvalidRequest: The argument looks like a pattern, JSON or a list of paths.
    """
    if input_format == "text":
        return Request(argument)
    is_one_word = argument.isascii() and not re.search(r"\s", argument)
    has_known_suffix = Path(argument[-255:]).suffix.lower() in KNOWN_SUFFIXES
    if input_format != "auto" or has_known_suffix or is_one_word:
        if glob.has_magic(argument):
            raise InvalidRequest(
                f"no file matches {argument}; to send the pattern as a text, set --input-format to text"
            )
        hint = "" if has_known_suffix else "; to send the word as a text, set --input-format to text"
        raise FileNotFoundError(2, f"No such file{hint}", argument)
    if detected := _detect_format(argument):
        raise InvalidRequest(f"{argument[:60]!r} looks like {detected}; {INPUT_FORMAT_HINT}")
    return Request(argument)


def detect_file_type(path: Path, input_format: Format) -> str:
    """Return image, text or other for a file of a folder. Other files are texts if the input format is text."""
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
    return "text" if input_format == "text" and suffix not in JSONL_SUFFIXES else "other"


def open_input(name: str) -> AbstractContextManager[BinaryIO]:
    """Open a file, or standard input for `-`; leaving the context does not close standard input."""
    return nullcontext(sys.stdin.buffer) if name == STDIN else open(name, "rb")


def exists(name: str) -> bool:
    """Return whether a file exists. A text that is too long to be a file name returns False."""
    try:
        return Path(name).exists()
    except (OSError, ValueError):
        return False


def _detect_format(text: str) -> str:
    """Return the format that a text seems to have, or an empty string."""
    if text.lstrip()[:1] in ("{", "["):
        first = text.lstrip().partition("\n")[0]
        if _is_json(first) or _is_json(text):
            return "JSON"
    lines = list(islice((line for line in text.splitlines() if line.strip()), MAX_CHECKED_LINES))
    return "a list of paths" if lines and all(_is_path(line) for line in lines) else ""


def _is_json(text: str) -> bool:
    """Return whether a text is a JSON object or array."""
    try:
        return isinstance(json.loads(text), (dict, list))
    except (ValueError, RecursionError):
        return False


def _is_path(line: str) -> bool:
    """Return whether a line is the name of an existing file, or one word with a known suffix."""
    has_known_suffix = Path(line).suffix.lower() in KNOWN_SUFFIXES
    return (has_known_suffix and not re.search(r"\s", line.strip())) or exists(line)
