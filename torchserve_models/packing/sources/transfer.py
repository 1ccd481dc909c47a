"""The body of one file over HTTP, appended to what is already there, as often as it takes.

The library's own download starts over in the next process and keeps what arrives in ten-megabyte pieces; here every
byte that came is on the disk when a connection breaks, and the next attempt, or the next run, asks for the rest.
"""

import logging
import time
from pathlib import Path
from typing import BinaryIO

import httpx2
from huggingface_hub import constants
from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.utils import (  # type: ignore[attr-defined]  # public, but not in an __all__
    hf_raise_for_status,
    http_stream_backoff,
    is_tqdm_disabled,
    tqdm,
)

from torchserve_models.packing.sources import hub

ATTEMPTS = 4
"""How often in a row an attempt may bring nothing before the download is given up."""

_TRANSIENT = (408, 429, 500, 502, 503, 504)
_PARTIAL_CONTENT = 206


def receive(url: str, name: str, size: int | None, path: Path) -> None:
    """Appends to `path` until it has `size` bytes, or the body ended where the size is not known.

    Raises what the last attempt raised: httpx2.TransportError, or HfHubHTTPError for an answer that is no file.
    """
    fruitless = 0
    while True:
        start = path.stat().st_size
        if size is not None and start >= size:
            return
        try:
            with path.open("ab") as file:
                _attempt(url, name, size, file)
            return
        except (httpx2.TransportError, HfHubHTTPError) as error:
            if isinstance(error, HfHubHTTPError) and error.response.status_code not in _TRANSIENT:
                raise
            fruitless = 0 if path.stat().st_size > start else fruitless + 1
            if fruitless >= ATTEMPTS:
                raise
            time.sleep(fruitless)


def _attempt(url: str, name: str, size: int | None, file: BinaryIO) -> None:
    start = file.tell()
    headers = {**hub.headers(), **({"Range": f"bytes={start}-"} if start else {})}
    with http_stream_backoff(
        "GET",
        url,
        headers=headers,
        timeout=constants.HF_HUB_DOWNLOAD_TIMEOUT,
        retry_on_exceptions=(),
        retry_on_status_codes=(),
    ) as response:
        hf_raise_for_status(response)
        if response.status_code != _PARTIAL_CONTENT:  # the whole file, whatever was asked for
            file.truncate(0)
            start = 0
        with tqdm(  # type: ignore[no-untyped-call]
            desc=name,
            total=size,
            initial=start,
            unit="B",
            unit_scale=True,
            disable=is_tqdm_disabled(logging.WARNING),
        ) as bar:
            for chunk in response.iter_bytes():
                file.write(chunk)
                bar.update(len(chunk))
                if size is not None and file.tell() > size:  # not the file; do not fill the disk with it
                    return
