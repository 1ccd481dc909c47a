"""Find fields, files and query parameters that a request has twice.

TorchServe's worker receives every value, and its `ts.service.Service` keeps the last one of each name before it calls
a handler. Here it is made to leave a mark as well. It is the one place where a handler changes TorchServe; 0.12, its
last release, is what this relies on, and tests check.
"""

import functools
import sys
from collections import Counter
from collections.abc import Mapping
from typing import Any

from handlers.core.errors import InvalidRequest

MARK = "repeated fields"
"""Among a request's headers, a tuple of names. No header of HTTP has a space in its name."""


def install() -> None:
    """Have TorchServe, if it is what runs this process, mark requests with repeated names."""
    module = sys.modules.get("ts.service")
    if module is not None:
        mark_repeated_names(module.Service)


def mark_repeated_names(service: Any) -> None:
    """Wrap `service.retrieve_data_for_inference`, TorchServe's step from a batch's frames to dictionaries."""
    retrieve = service.retrieve_data_for_inference
    if hasattr(retrieve, "__wrapped__"):
        return

    @functools.wraps(retrieve)
    def marking(batch: Any) -> Any:
        headers, *rest = retrieve(batch)
        for request, processor in zip(batch, headers, strict=True):
            counts = Counter(parameter["name"] for parameter in request["parameters"])
            if len(counts) < len(request["parameters"]):
                names = tuple(name for name, count in counts.items() if count > 1)
                processor.get_request_properties()[MARK] = names
        return headers, *rest

    service.retrieve_data_for_inference = staticmethod(marking)


def check_not_repeated(headers: Mapping[str, Any]) -> None:
    """Raise InvalidRequest for a request that was marked."""
    names = headers.get(MARK)
    if isinstance(names, tuple) and names:
        raise InvalidRequest(f"'{names[0][:60]}' is given twice")
