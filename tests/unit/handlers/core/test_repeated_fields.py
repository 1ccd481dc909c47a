"""Tests of the patch that marks requests with repeated names, with TorchServe's code."""

import inspect
import sys
from types import SimpleNamespace
from typing import Any

import pytest

from handlers.core import repeated_fields
from handlers.core.errors import InvalidRequest
from handlers.core.repeated_fields import REPEATED_NAMES_KEY, check_not_repeated, mark_repeated_names
from tests.unit.handlers.torchserve import Service


def frame(*names: str) -> dict[str, Any]:
    parameters = [{"name": name, "contentType": "", "value": bytearray(b"x")} for name in names]
    return {"requestId": b"1", "parameters": parameters, "headers": [{"name": b"explain", "value": b"False"}]}


@pytest.fixture(autouse=True)
def unmarked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Restore the unpatched method, because a handler of another test may have patched it."""
    monkeypatch.setattr(
        Service,
        "retrieve_data_for_inference",
        staticmethod(inspect.unwrap(Service.retrieve_data_for_inference)),
    )


def test_repeated_names_are_marked() -> None:

    class Marked(Service):  # type: ignore[misc]
        pass

    batch = [frame("text", "text", "file"), frame("text"), frame()]
    unmarked_headers, *unmarked = Service.retrieve_data_for_inference(batch)
    mark_repeated_names(Marked)
    mark_repeated_names(Marked)
    headers, *others = Marked.retrieve_data_for_inference(batch)
    assert others == unmarked
    requests = [processor.get_request_properties() for processor in headers]
    assert [request.pop(REPEATED_NAMES_KEY, None) for request in requests] == [("text",), None, None]
    assert requests == [processor.get_request_properties() for processor in unmarked_headers]
    with pytest.raises(InvalidRequest, match="'text' is sent twice"):
        check_not_repeated({REPEATED_NAMES_KEY: ("text",)})
    check_not_repeated(requests[1])


def test_install_without_torchserve_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "ts.service")
    repeated_fields.install()
    stub = SimpleNamespace(Service=type("Stub", (Service,), {}))
    monkeypatch.setitem(sys.modules, "ts.service", stub)
    repeated_fields.install()
    assert stub.Service.retrieve_data_for_inference is not Service.retrieve_data_for_inference
