"""The `handler:` section of model-config.yaml."""

from dataclasses import dataclass

import pytest

from handlers.core.config import HandlerConfig
from handlers.core.errors import ConfigurationError
from handlers.text.config import SummarizerConfig
from handlers.vision.types import VisionConfig


def test_defaults_and_values():
    assert HandlerConfig.from_mapping(None) == HandlerConfig()
    assert VisionConfig.from_mapping({"precision": "fp32", "threads": 2, "max_pixels": 5}).max_pixels == 5


@pytest.mark.parametrize(
    ("section", "message"),
    [
        (
            {"presicion": "fp32"},
            r"unknown key 'handler.presicion'; known: decode, engine, gpu_memory, max_batch, max_bytes, max_items",
        ),
        (
            {"precision": "fp8"},
            r"'handler.precision' must be 'auto' or 'fp32' or 'bf16' or 'int8', not 'fp8'",
        ),
        ({"threads": 1.5}, r"'handler.threads' must be an integer or 'auto', not 1.5"),
        ({"threads": 0}, r"'handler.threads' must be at least 1, not 0"),
        ({"max_items": True}, r"'handler.max_items' must be an integer"),
        ({"gpu_memory": 1.5}, r"'handler.gpu_memory' must be above 0 and at most 1"),
        ({"gpu_memory": 0}, r"'handler.gpu_memory' must be above 0 and at most 1"),
        ([], r"must be a mapping"),
    ],
)
def test_errors_name_the_key_and_what_it_takes(section, message):
    with pytest.raises(ConfigurationError, match=message):
        VisionConfig.from_mapping(section)


@pytest.mark.parametrize("section", [{"engine": "openvino"}, {"engine": "torch-compiled"}])
def test_each_task_has_its_own_engines(section):
    VisionConfig.from_mapping(section)
    with pytest.raises(ConfigurationError, match=next(iter(section))):
        SummarizerConfig.from_mapping(section)


def test_fields_of_every_type():
    @dataclass(frozen=True)
    class Config(HandlerConfig):
        share: float = 0.5
        name: str | None = None

    assert Config.from_mapping({"share": 1, "name": None}).share == 1
    with pytest.raises(ConfigurationError, match=r"'handler.name' must be a string or null"):
        Config.from_mapping({"name": 3})
