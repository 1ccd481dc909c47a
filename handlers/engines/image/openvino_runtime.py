"""OpenVINO without its side effects: no telemetry, no changed logging, and no crash at signals."""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from handlers.engines.base import EngineUnavailable


def import_openvino() -> Any:
    """Return the module `openvino`.

    Its import sends telemetry to Google Analytics through `openvino_telemetry` if that package can be imported, as
    NNCF's does. The only other way to turn it off is a file in the user's home, so the package is blocked.

    Raises:
        EngineUnavailable: OpenVINO is not installed or does not load.
    """
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    try:
        import openvino
    except ImportError as error:
        raise EngineUnavailable(f"OpenVINO is not installed here ({error})") from error
    return openvino


@contextmanager
def preserve_logging() -> Iterator[None]:
    """Restore the root logger afterwards, because OpenVINO's converter silences it for the whole process."""
    root = logging.getLogger()
    level, handlers, filters = root.level, root.handlers[:], root.filters[:]
    try:
        yield
    finally:
        root.setLevel(level)
        root.handlers[:], root.filters[:] = handlers, filters


_compiled_models: list[Any] = []


def compile_model(core: Any, model: Any, properties: dict[str, Any]) -> Any:
    """Return a model that is compiled for the CPU, and keep it until the process ends.

    OpenVINO (2026.4.1) installs a signal stack with each compiled model. If models are not freed in the reverse order
    of their creation, the thread is left with a freed signal stack, and the next signal that Python handles crashes
    the process.
    """
    compiled_model = core.compile_model(model, "CPU", properties)
    _compiled_models.append(compiled_model)
    return compiled_model


def free_last_models(count: int) -> None:
    """Free the `count` models that were compiled last. Nothing else may refer to them or their requests."""
    for _ in range(count):
        _compiled_models.pop()
