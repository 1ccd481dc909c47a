"""Requests for tuning: images, or texts with summaries of a fixed length."""

import json
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

from torchserve_models.loadgen import Target, post_request
from torchserve_models.sample_inputs import IMAGES, REPORTS
from torchserve_models.tuning.errors import TuningError

LABELS_PER_ANSWER = 5
INPUT_WORDS, NEW_TOKENS = 190, 32
"""Words of a sample text (about 256 tokens), and tokens of each summary."""
TEXT_TIMEOUT_S = 900.0
IMAGE_SUFFIXES, TEXT_SUFFIXES = (".jpg", ".jpeg"), (".txt",)


def image_target(url: str, model: str, images: Sequence[bytes]) -> Target:
    """Return a load target that classifies JPEG images."""
    return _target(url, model, [(image, "image/jpeg") for image in images], b'"label"', LABELS_PER_ANSWER)


def text_target(url: str, model: str, texts: Sequence[str]) -> Target:
    """Return a load target that generates summaries of exactly `NEW_TOKENS` tokens with greedy search."""
    parameters = {"min_new_tokens": NEW_TOKENS, "max_new_tokens": NEW_TOKENS, "num_beams": 1}
    bodies = [json.dumps({"inputs": text, "parameters": parameters}).encode() for text in texts]
    return _target(url, model, [(body, "application/json") for body in bodies], b'"summary_text"', 1)


def _target(url: str, model: str, bodies: Sequence[tuple[bytes, str]], marker: bytes, count: int) -> Target:
    """Return requests to a model at an http URL, which may have a path. Raises TuningError for any other URL."""
    try:
        address = urlsplit(url)
        host, port = address.hostname or "", address.port or 80
    except ValueError as error:
        raise TuningError(f"{url}: {error}") from error
    if address.scheme != "http" or not host:
        raise TuningError(f"{url} must have the form http://HOST:PORT")
    path = f"{address.path.rstrip('/')}/predictions/{model}"
    requests = [post_request(path, body, content_type, f"{host}:{port}") for body, content_type in bodies]
    return Target(host, port, tuple(requests), marker, count, timeout=TEXT_TIMEOUT_S)


def load_images(folder: Path | None) -> list[bytes]:
    """Read the JPEG files of a folder, or sample images. Raises TuningError."""
    return [path.read_bytes() for path in _files(folder, IMAGE_SUFFIXES, list(IMAGES.values()))]


def load_texts(folder: Path | None) -> list[str]:
    """Read the text files of a folder, or sample texts of `INPUT_WORDS` words. Raises TuningError."""
    texts = [path.read_text("utf-8") for path in _files(folder, TEXT_SUFFIXES, list(REPORTS))]
    if folder is not None:
        return texts
    words = [text.split() for text in texts]
    return [" ".join((text * INPUT_WORDS)[:INPUT_WORDS]) for text in words]


def _files(folder: Path | None, suffixes: Sequence[str], default: list[Path]) -> list[Path]:
    if folder is None:
        return default
    try:
        files = [path for path in sorted(folder.iterdir()) if path.suffix.lower() in suffixes]
    except OSError as error:
        raise TuningError(f"cannot read {folder}: {error.strerror}") from error
    if not files:
        raise TuningError(f"{folder} contains no input files; allowed suffixes: {', '.join(suffixes)}")
    return files
