"""Builds model archives: weights from the hub, a folder or the starters, with the handlers and their provenance.

    from torchserve_models.packing import pack
    packed = pack("resnet-50", weights="starter")

Importing this imports neither torch nor transformers; the hub's client only when the hub is asked.
"""

from torchserve_models import handlers_path  # noqa: F401
from torchserve_models.packing.archive.provenance import Provenance, read_provenance
from torchserve_models.packing.build import Packed, pack
from torchserve_models.packing.errors import PackingError
from torchserve_models.packing.models import default_models, known_models

__all__ = [
    "Packed",
    "PackingError",
    "Provenance",
    "default_models",
    "known_models",
    "pack",
    "read_provenance",
]
