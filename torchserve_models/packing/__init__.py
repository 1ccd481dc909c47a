"""Build model archives from weights, handlers, configuration and provenance.

    from torchserve_models.packing import PackRequest, pack
    packed = pack(PackRequest("resnet-50", weights="starter"))

Importing this package imports neither torch nor transformers. The Hugging Face Hub client is imported only when the
hub is contacted.
"""

from torchserve_models import handlers_path  # noqa: F401
from torchserve_models.packing.archive.provenance import Provenance, read_provenance
from torchserve_models.packing.build import PackedArchive, pack
from torchserve_models.packing.errors import PackingError
from torchserve_models.packing.models import default_models, known_models
from torchserve_models.packing.request import PackRequest

__all__ = [
    "PackRequest",
    "PackedArchive",
    "PackingError",
    "Provenance",
    "default_models",
    "known_models",
    "pack",
    "read_provenance",
]
