"""Validation of model-config.yaml: all keys, with values of all YAML types."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from torchserve_models.packing import errors
from torchserve_models.packing.archive.model_config import _SETTINGS, read_model_config
from torchserve_models.packing.models import RepositoryLayout
from torchserve_models.packing.tasks import IMAGE_CLASSIFICATION, SUMMARIZATION, TaskSpec

OWN = TaskSpec("own-handler", "mine.py", "", "", frozenset(), ())
VALUES: dict[str, Any] = {
    "an integer": "3",
    "zero": "0",
    "a negative integer": "-1",
    "more than 32 bits": "2147483648",
    "a float": "1.5",
    "a whole float": "3.0",
    "infinity": ".inf",
    "a string": "fast",
    "a quoted number": "'3'",
    "true": "true",
    "false": "off",
    "null": "null",
    "nothing": "",
    "a list": "[1, 2]",
    "an empty list": "[]",
    "a list of words": "[a]",
    "a mapping": "{a: 1}",
    "a date": "2024-01-02",
    "a time": "2024-01-02 03:04:05",
    "binary": "!!binary aGVsbG8=",
    "octal": "010",
    "sexagesimal": "2:00",
}
COUNTS = {"an integer"}
COUNTS_FROM_0 = COUNTS | {"zero"}
FLAGS = {"true", "false"}
TAKEN = {
    "minWorkers": COUNTS_FROM_0,
    "maxWorkers": COUNTS_FROM_0,
    "batchSize": COUNTS,
    "maxBatchDelay": COUNTS,
    "responseTimeout": COUNTS,
    "startupTimeout": COUNTS,
    "jobQueueSize": COUNTS,
    "maxRetryTimeoutInSec": COUNTS_FROM_0,
    "deviceType": set(),
    "deviceIds": {"a list"},
    "parallelType": set(),
    "parallelLevel": COUNTS_FROM_0,
    "torchrun": {"a mapping"},
    "clientTimeoutInMills": {"zero"},
    "useJobTicket": FLAGS,
    "continuousBatching": FLAGS,
    "sequenceBatching": FLAGS,
    "sequenceMaxIdleMSec": COUNTS_FROM_0,
    "sequenceTimeoutMSec": COUNTS_FROM_0,
    "maxSequenceJobQueueSize": COUNTS,
    "maxNumSequence": COUNTS,
    "asyncCommunication": {"false"},
    "useVenv": FLAGS,
    "handler": {"null", "nothing"},
}


@pytest.fixture
def layout(tmp_path: Path) -> RepositoryLayout:
    (tmp_path / "models" / "net").mkdir(parents=True)
    return RepositoryLayout(tmp_path)


def read(layout: RepositoryLayout, content: str, task: TaskSpec = IMAGE_CLASSIFICATION) -> Any:
    (layout.models / "net" / "model-config.yaml").write_text(content)
    return read_model_config("net", task, layout, [].append)


def refused(layout: RepositoryLayout, content: str, task: TaskSpec = IMAGE_CLASSIFICATION) -> str:
    with pytest.raises(errors.InvalidSource, match=r"model-config\.yaml") as error:
        read(layout, content, task)
    return str(error.value)


def test_every_torchserve_setting_is_known() -> None:
    assert TAKEN.keys() == {*_SETTINGS, "handler"}


@pytest.mark.parametrize("key", TAKEN)
def test_every_setting_accepts_only_its_type(key: str, layout: RepositoryLayout) -> None:
    other = {"minWorkers": "maxWorkers: 5\n", "maxWorkers": "minWorkers: 0\n"}.get(key, "")
    for name, value in VALUES.items():
        content = f"{other}{key}: {value}\n"
        yaml.safe_load(content)  # YAML itself takes each of them
        if name in TAKEN[key]:
            read(layout, content)
        else:
            assert f"'{key}" in refused(layout, content), name


@pytest.mark.parametrize(
    "key", ["max_items", "max_new_tokens", "max_input_tokens", "max_batch_tokens", "threads"]
)
def test_handler_section_accepts_only_mappings(key: str, layout: RepositoryLayout) -> None:
    good = {"an integer"} | ({"null", "nothing"} if key == "max_input_tokens" else set())
    for name, value in VALUES.items():
        content = f"handler:\n  {key}: {value}\n"
        if name in good:
            read(layout, content, SUMMARIZATION)
        else:
            assert key in refused(layout, content, SUMMARIZATION), name


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("batchsize: 3\n", "unknown key 'batchsize'; did you mean 'batchSize'?"),
        ("batch_size: 3\n", "did you mean 'batchSize'?"),
        ("min-workers: 3\n", "did you mean 'minWorkers'?"),
        ("responseTimeOut: 3\n", "did you mean 'responseTimeout'?"),
        ("handlers: {}\n", "did you mean 'handler'?"),
        ("color: red\n", "unknown key 'color'; allowed: minWorkers, maxWorkers, "),
        ("1: red\n", "unknown key 1;"),
        ("on: red\n", "unknown key True;"),
        ("minWorkers: 2\n", "'minWorkers' requires 'maxWorkers'"),
        ("maxWorkers: 2\n", "'maxWorkers' requires 'minWorkers'"),
        ("minWorkers: 3\nmaxWorkers: 2\n", "'minWorkers' (3) must not be above 'maxWorkers' (2)"),
        ("batchSize: 1\nbatchSize: 2\n", "line 2: 'batchSize' is set twice"),
        ("handler:\n  threads: 1\n  threads: 2\n", "line 3: 'threads' is set twice"),
        ("responseTimeout: 060\n", "'responseTimeout' is 060, which YAML reads as 48"),
        ("responseTimeout: 10:00\n", "'responseTimeout' is 10:00, which YAML reads as 600"),
        ("handler:\n  max_items: 010\n", "'max_items' is 010, which YAML reads as 8"),
        ("deviceType: GPU\n", "'deviceType' must be 'cpu' or 'gpu', not 'GPU'"),
        ("parallelType: dp\n", "'parallelType' must be 'none' or 'pp' or"),
        ("deviceIds: [0, -1]\n", "'deviceIds' must be a list of integers of at least 0"),
        ("clientTimeoutInMills: 500\n", "without a response"),
        ("handler:\n  max_itens: 3\n", "'handler.max_itens'"),
        ("handler:\n  engine: fast\n", "'handler.engine'"),
        ("handler: [1]\n", "'handler' must be a mapping"),
    ],
)
def test_error_names_the_key_and_the_allowed_values(
    content: str, words: str, layout: RepositoryLayout
) -> None:
    assert words in refused(layout, content)


@pytest.mark.parametrize(
    ("content", "timeout"),
    [
        ("handler:\n  engine: torch-compiled\n", None),
        ("deviceType: cpu\nhandler:\n  engine: torch-compiled\n", None),
        ("deviceType: gpu\nstartupTimeout: 600\nhandler:\n  engine: torch-compiled\n", None),
        ("deviceType: gpu\nstartupTimeout: 60\nhandler:\n  engine: torch\n", None),
        ("deviceType: gpu\nstartupTimeout: 599\nhandler:\n  engine: torch-compiled\n", 599),
        ("deviceType: gpu\nhandler:\n  engine: torch-compiled\n", 120),
    ],
)
def test_short_startup_for_compilation_on_a_gpu_is_reported(
    content: str, timeout: int | None, layout: RepositoryLayout
) -> None:
    """Such a configuration is valid, because workers use the CPU if there is no GPU."""
    messages: list[str] = []
    (layout.models / "net" / "model-config.yaml").write_text(content)
    config = read_model_config("net", IMAGE_CLASSIFICATION, layout, messages.append)
    assert config.engine in content
    assert len(messages) == (timeout is not None)
    assert all(f"'startupTimeout' is {timeout} seconds" in message for message in messages)


def test_handler_settings_are_returned(layout: RepositoryLayout) -> None:
    content = (
        "deviceType: gpu\ndeviceIds: [0, 1]\nparallelType: none\nhandler:\n  engine: torch\n  max_items: 4\n"
    )
    config = read(layout, content)
    assert config == (content.encode(), "torch", "auto", {"engine": "torch", "max_items": 4})


def test_custom_handler_may_have_other_keys(layout: RepositoryLayout) -> None:
    content = "batchSize: 2\nmicro_batching: {parallelism: 2}\nhandler:\n  anything: [1]\n"
    assert read(layout, content, OWN).settings == {"anything": [1]}
    assert "did you mean 'batchSize'" in refused(layout, "batch_size: 2\n", OWN)
    assert "'handler' must be a mapping" in refused(layout, "handler: 3\n", OWN)
    assert "'batchSize' must be" in refused(layout, "batchSize: two\n", OWN)
