"""Base class of fake management clients."""

from typing import Self


class FakeClient:
    """A fake client that code under test creates and enters like `Client(...)`: both return the fake itself."""

    def __call__(self, **_: object) -> Self:
        return self

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return None
