"""Tests of the `handler:` section of model-config.yaml."""

from dataclasses import dataclass, fields

import pytest
import yaml

from handlers.core.config import MAX_INTEGER, HandlerConfig, server_setting
from handlers.core.device import Device
from handlers.core.errors import ConfigurationError
from handlers.text.config import SummarizerConfig
from handlers.vision.types import VisionConfig


def test_config_has_defaults_and_configured_values():
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
def test_config_error_names_key_and_allowed_values(section, message):
    with pytest.raises(ConfigurationError, match=message):
        VisionConfig.from_mapping(section)


@pytest.mark.parametrize("section", [{"engine": "openvino"}, {"engine": "torch-compiled"}])
def test_engines_of_each_task_are_checked(section):
    VisionConfig.from_mapping(section)
    with pytest.raises(ConfigurationError, match=next(iter(section))):
        SummarizerConfig.from_mapping(section)


def test_draft_tokens_are_a_positive_number_or_null():
    assert SummarizerConfig.from_mapping({"prompt_lookup_num_tokens": None}).prompt_lookup_num_tokens is None
    with pytest.raises(ConfigurationError, match="must be an integer or null, not 'off'"):
        SummarizerConfig.from_mapping({"prompt_lookup_num_tokens": "off"})
    with pytest.raises(ConfigurationError, match="must be at least 1, not 0"):
        SummarizerConfig.from_mapping({"prompt_lookup_num_tokens": 0})


def test_config_fields_of_every_type_are_checked():
    @dataclass(frozen=True)
    class Config(HandlerConfig):
        share: float = 0.5
        name: str | None = None

    assert Config.from_mapping({"share": 1, "name": None}).share == 1
    with pytest.raises(ConfigurationError, match=r"'handler.name' must be a string or null"):
        Config.from_mapping({"name": 3})


def read(settings):
    """Return the result of `settings()`, or None and the error message."""
    try:
        return settings(), ""
    except ConfigurationError as error:
        return None, str(error)


YAML_VALUES = [
    "null", "true", "false", "0", "1", "2", "-1", "0.5", "1.0", "1e-300", "-0.0", ".nan", ".inf", "-.inf", "1_000",
    "0x10", "1e400", "9" * 30, "9" * 400, '"1"', '"0.5"', "auto", "fp32", "torch", '""', "2020-01-01",
    "2020-01-01T00:00:00Z", "[]", "[1]", "{}", "{a: 1}", "!!binary aGk=", "!!set {a}", "12:30", "yes", "~",
]  # fmt: skip
KEYS = [
    (kind, field.name) for kind in (HandlerConfig, VisionConfig, SummarizerConfig) for field in fields(kind)
]


@pytest.mark.parametrize("text", YAML_VALUES, ids=lambda text: text[:20])
@pytest.mark.parametrize(("kind", "key"), KEYS, ids=lambda value: getattr(value, "__name__", value))
def test_any_value_is_accepted_or_error_names_its_key(kind, key, text):
    section = yaml.safe_load(f"{key}: {text}")
    config, message = read(lambda: kind.from_mapping(section))
    if config is None:
        assert f"'handler.{key}'" in message
        assert len(message) < 400
        return
    value = getattr(config, key)
    if key == "gpu_memory":
        assert value == "auto" or (type(value) is float and 0 < value <= 1)
    elif isinstance(value, int):
        assert type(value) is int
        assert 1 <= value <= MAX_INTEGER
        Device.choose(None, config)
    else:
        assert value is None or type(value) is str


@pytest.mark.parametrize("key", ["1", "1.5", "null", "true", "2020-01-01", "[1]", '"a\\nb"', "x" * 5000])
def test_unknown_key_is_named_in_error(key):
    with pytest.raises(ConfigurationError, match="unknown key 'handler"):
        HandlerConfig.from_mapping({yaml.safe_load(key) if key != "[1]" else (1,): 1})


def test_integer_gpu_memory_becomes_float():
    """torch accepts only floats as a share of memory."""
    config = HandlerConfig.from_mapping({"gpu_memory": 1})
    assert type(config.gpu_memory) is float
    assert type(HandlerConfig.from_mapping({}).gpu_memory) is str


@pytest.mark.parametrize("text", YAML_VALUES, ids=lambda text: text[:20])
@pytest.mark.parametrize("key", ["responseTimeout", "minWorkers"])
def test_server_setting_is_a_number_or_error_names_it(key, text):
    settings = yaml.safe_load(f"{key}: {text}")
    value, message = read(lambda: server_setting(settings, key, 7))
    if value is None:
        assert f"'{key}'" in message
        return
    assert type(value) in (int, float)
    assert 0 < value < float("inf")
