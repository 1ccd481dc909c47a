"""The request to prepare the engine files of one archive."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torchserve_models.packing.models import RepositoryLayout
from torchserve_models.packing.sources.resolve import WeightSource


@dataclass(frozen=True)
class ArtifactRequest:
    """The parameters of preparing the engine files of one archive.

    Attributes:
        name: Name of the model.
        source: The model files and their origin.
        engine: The `handler.engine` setting of model-config.yaml.
        precision: The `handler.precision` setting of model-config.yaml.
        archive: Path of the archive in the store; an earlier archive may exist there.
        layout: The folders of the repository.
        settings: The `handler:` section of model-config.yaml, with which a summarizer is checked.
    """

    name: str
    source: WeightSource
    engine: str
    precision: str
    archive: Path
    layout: RepositoryLayout
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def cache(self) -> Path:
        """Cache folder for this model name."""
        return self.layout.prepared / self.name
