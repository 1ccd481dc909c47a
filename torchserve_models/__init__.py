"""ResNet-50, T5 and BART on TorchServe: a client, model archives, a supervised server and a gateway."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torchserve_models.client import AsyncClient, Client

    __version__: str

__all__ = ["AsyncClient", "Client", "__version__"]


def __getattr__(name: str) -> Any:
    """Import the client on first use, so that other commands do not load its libraries."""
    if name == "__version__":
        return _read_version()
    if name in __all__:
        from torchserve_models import client

        return getattr(client, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def _read_version() -> str:
    """Return the version of the installed package, or of the pyproject.toml of a checkout."""
    from importlib.metadata import version

    from torchserve_models.paths import ROOT

    project = ROOT / "pyproject.toml"
    if project.is_file():
        import tomllib

        return str(tomllib.loads(project.read_text("utf-8"))["project"]["version"])
    return version("torchserve-models")
