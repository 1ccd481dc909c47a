"""Errors of tuning."""


class TuningError(Exception):
    """No setting could be measured, or the configuration cannot be changed; `str()` is the user-facing message."""
