"""Resumable HTTP downloads with retries.

huggingface_hub restarts downloads in the next process and buffers 10 MB at a time. Here every received byte is on
disk when a connection breaks, and the next attempt or run requests only the remaining bytes.
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
"""Maximum number of consecutive attempts that receive no data."""

_TRANSIENT = (408, 429, 500, 502, 503, 504)
_PARTIAL_CONTENT = 206


def receive(url: str, name: str, size: int | None, path: Path) -> None:
    """Download the rest of a file to `path`, up to `size` bytes or the end of the body if the size is unknown.

    Raises:
        httpx2.TransportError: The last attempt failed.
        HfHubHTTPError: The last response has an error status.
    """
    failed_attempts = 0
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
            failed_attempts = 0 if path.stat().st_size > start else failed_attempts + 1
            if failed_attempts >= ATTEMPTS:
                raise
            time.sleep(failed_attempts)


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
        if response.status_code != _PARTIAL_CONTENT:  # the server ignored the range and sends the whole file
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
                if (
                    size is not None and file.tell() > size
                ):  # a longer body is not the expected file; do not fill the disk
                    return
