"""Errors of tuning."""


class TuningError(Exception):
    """A failed measurement or configuration change; `str(error)` is the message for the user."""
