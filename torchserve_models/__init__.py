"""ResNet-50, T5 and BART on TorchServe: a client, model archives, a supervised server and a gateway."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torchserve_models.client import AsyncClient, Client

__all__ = ["AsyncClient", "Client"]


def __getattr__(name: str) -> Any:
    """Import the client on first use, so that other commands do not load its libraries."""
    if name in __all__:
        from torchserve_models import client

        return getattr(client, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
