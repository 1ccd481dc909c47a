"""Detect fields, files and query parameters that a request sends twice.

TorchServe's worker receives all values, but `ts.service.Service` passes only the last value of each name to a
handler. This module patches `Service` to mark such requests. Handlers do not patch anything else in TorchServe. The
patch relies on TorchServe 0.12, the last release.
"""

import functools
import sys
from collections import Counter
from collections.abc import Mapping
from typing import Any

from handlers.core.errors import InvalidRequest

REPEATED_NAMES_KEY = "repeated fields"
"""Key in a request's headers for a tuple of repeated names. HTTP header names never contain a space."""


def install() -> None:
    """Patch TorchServe to mark requests with repeated names. Has no effect outside of a TorchServe worker."""
    module = sys.modules.get("ts.service")
    if module is not None:
        mark_repeated_names(module.Service)


def mark_repeated_names(service: Any) -> None:
    """Wrap `service.retrieve_data_for_inference`, which converts a batch's frames to dictionaries."""
    retrieve = service.retrieve_data_for_inference
    if hasattr(retrieve, "__wrapped__"):
        return

    @functools.wraps(retrieve)
    def marking(batch: Any) -> Any:
        headers, *others = retrieve(batch)
        for request, processor in zip(batch, headers, strict=True):
            counts = Counter(parameter["name"] for parameter in request["parameters"])
            if len(counts) < len(request["parameters"]):
                names = tuple(name for name, count in counts.items() if count > 1)
                processor.get_request_properties()[REPEATED_NAMES_KEY] = names
        return headers, *others

    service.retrieve_data_for_inference = staticmethod(marking)


def check_not_repeated(headers: Mapping[str, Any]) -> None:
    """Raise InvalidRequest if the request is marked."""
    names = headers.get(REPEATED_NAMES_KEY)
    if isinstance(names, tuple) and names:
        raise InvalidRequest(f"'{names[0][:60]}' is sent twice; send it once")
