"""One-line messages of the client's errors, for terminals and pages."""

from torchserve_models.client.errors import TorchServeError, Unavailable

START_HINT = "Is it running? scripts/serve starts it, scripts/status shows its state."


def explain(error: TorchServeError) -> str:
    """Return one line: the message, with the error's class and code if there is a code."""
    return error.message if error.code is None else f"{type(error).__name__} ({error.code}): {error.message}"


def is_server_missing(error: BaseException | None) -> bool:
    """Return whether no server answered, so that `START_HINT` helps."""
    return isinstance(error, Unavailable) and not error.sent
