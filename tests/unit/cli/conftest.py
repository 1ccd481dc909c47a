"""Fixture: the fake server of the client tests."""

from tests.unit.client.conftest import fake

__all__ = ["fake"]
