"""OpenVINO without what it does beside its work: no report of its use over the network, nothing printed."""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from handlers.engines.base import EngineUnavailable


def import_openvino() -> Any:
    """The module. Raises EngineUnavailable where it is not installed or does not load.

    Its import reports to Google Analytics through `openvino_telemetry`, unless that package is missing; NNCF does the
    same. Neither has another switch than a file in the user's home.
    """
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    try:
        import openvino
    except ImportError as error:
        raise EngineUnavailable(f"OpenVINO is not installed here ({error})") from error
    return openvino


@contextmanager
def same_log() -> Iterator[None]:
    """Puts the root logger back as it was: OpenVINO's converter silences it for the whole process."""
    root = logging.getLogger()
    level, handlers, filters = root.level, root.handlers[:], root.filters[:]
    try:
        yield
    finally:
        root.setLevel(level)
        root.handlers[:], root.filters[:] = handlers, filters


_alive: list[Any] = []


def compiled(core: Any, model: Any, properties: dict[str, Any]) -> Any:
    """The network ready to run on the CPU, kept as long as the process.

    OpenVINO (2026.4.1) gives the thread a signal stack with each compiled network. When those end in another order
    than the reverse, the thread is left with one that is freed, and the next signal that Python handles ends the
    process. A worker never ends its network anyway.
    """
    network = core.compile_model(model, "CPU", properties)
    _alive.append(network)
    return network
