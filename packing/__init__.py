"""Builds model archives: weights from the hub, a folder or the starters, with the handlers and their provenance.

    from packing import pack
    packed = pack("resnet-50", weights="starter")

Importing this imports neither torch nor transformers; the hub's client only when the hub is asked.
"""

from packing.build import Packed, pack
from packing.errors import PackingError
from packing.models import default_models, known_models
from packing.provenance import Provenance, read_provenance

__all__ = [
    "Packed",
    "PackingError",
    "Provenance",
    "default_models",
    "known_models",
    "pack",
    "read_provenance",
]
