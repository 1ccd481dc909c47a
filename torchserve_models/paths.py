"""The locations of files that are not modules: in a checkout, or in an installed wheel."""

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent
_WHEEL_DATA = _PACKAGE / "data"
_IS_INSTALLED = _WHEEL_DATA.is_dir()

ROOT = _WHEEL_DATA if _IS_INSTALLED else _PACKAGE.parent
"""The directory of `handlers/`, `models/`, `deploy/` and `config.properties`; read-only in an installed wheel."""


def _writable_root() -> Path:
    if not _IS_INSTALLED:
        return ROOT
    try:
        return Path.cwd()
    except FileNotFoundError:  # the current directory was removed
        return Path()


WRITABLE_ROOT = _writable_root()
"""Default parent of `.run/` and `model_store/`: the checkout or, for an installed wheel, the current directory."""
