"""Model descriptions from real handlers with the starter weights."""

import json
from pathlib import Path

from handlers.core.handler import Handler
from handlers.image_classifier import ImageClassifier
from handlers.summarizer import Summarizer
from tests.conftest import ROOT
from tests.unit.handlers.context import FakeContext
from torchserve_models.gateway.upstream.model_descriptions import ModelDescription

HANDLERS = {"resnet-50": ImageClassifier, "t5-small": Summarizer}


def initialized_handler(name: str, folder: Path) -> tuple[Handler, FakeContext]:
    folder.mkdir()
    (folder / "model").symlink_to(ROOT / "models" / name / "starter")
    context = FakeContext(folder, {"handler": {"precision": "fp32", "engine": "torch"}}, model_name=name)
    handler = HANDLERS[name]()
    handler.initialize(context)
    return handler, context


def model_description(name: str, handler: Handler, context: FakeContext) -> ModelDescription:
    context.receive([{"describe": "True"}])
    (metadata,) = handler.handle([{}], context)
    return ModelDescription(name, ("1.0", "2.0"), "2.0", json.loads(metadata))
