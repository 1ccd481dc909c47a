"""Ask the supervisor or a gateway for readiness."""

from typing import Any

from torchserve_models.client.calls import RestCall, path_of, read_json
from torchserve_models.client.errors import InvalidRequest, UnexpectedAnswer


def readyz_call(model: str | None, version: str | None, limit_s: float | None = None) -> RestCall[None]:
    """`GET /readyz`, of a model or a version if named. Not ready is raised as Overloaded, which has the reason.

    `limit_s`: seconds for the call, where that is less than what the operation has left. Raises InvalidRequest for a
    version without its model.
    """
    if version is not None and model is None:
        raise InvalidRequest("a version needs the name of its model")
    names = [name for name in (model, version) if name is not None]
    return RestCall("health", "GET", path_of("readyz", *names), _read, resend="never", limit=limit_s)


def _read(body: bytes) -> None:
    """The body of what is ready; another status says why it is not."""
    value: Any = read_json(body)
    if not (isinstance(value, dict) and value.get("ready") is True):
        raise UnexpectedAnswer(f"expected the readiness of a gateway, got {body[:60]!r}")
