"""The error that ends a chaos run before it has a result."""


class ChaosError(Exception):
    """The server under test cannot be started, or its models give no usable answers."""
