"""model-config.yaml is checked as a whole at packing: every key, with every type that YAML can give it."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from torchserve_models.packing import errors
from torchserve_models.packing.archive.model_config import _SETTINGS, read_model_config
from torchserve_models.packing.models import Layout
from torchserve_models.packing.tasks import IMAGE_CLASSIFICATION, SUMMARIZATION, Task

OWN = Task("own-handler", "mine.py", "", "", frozenset(), ())
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
def layout(tmp_path: Path) -> Layout:
    (tmp_path / "models" / "net").mkdir(parents=True)
    return Layout(tmp_path)


def read(layout: Layout, content: str, task: Task = IMAGE_CLASSIFICATION) -> Any:
    (layout.models / "net" / "model-config.yaml").write_text(content)
    return read_model_config("net", task, layout)


def refused(layout: Layout, content: str, task: Task = IMAGE_CLASSIFICATION) -> str:
    with pytest.raises(errors.BadSource, match=r"model-config\.yaml") as error:
        read(layout, content, task)
    return str(error.value)


def test_every_setting_is_in_the_table() -> None:
    assert TAKEN.keys() == {*_SETTINGS, "handler"}


@pytest.mark.parametrize("key", TAKEN)
def test_every_setting_with_every_type(key: str, layout: Layout) -> None:
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
def test_every_type_in_the_handlers_section(key: str, layout: Layout) -> None:
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
        ("color: red\n", "unknown key 'color'; known: minWorkers, maxWorkers, "),
        ("1: red\n", "unknown key 1;"),
        ("on: red\n", "unknown key True;"),
        ("minWorkers: 2\n", "'minWorkers' needs 'maxWorkers' beside it"),
        ("maxWorkers: 2\n", "'maxWorkers' needs 'minWorkers' beside it"),
        ("minWorkers: 3\nmaxWorkers: 2\n", "'minWorkers' (3) must not be above 'maxWorkers' (2)"),
        ("batchSize: 1\nbatchSize: 2\n", "line 2: 'batchSize' is there twice"),
        ("handler:\n  threads: 1\n  threads: 2\n", "line 3: 'threads' is there twice"),
        ("responseTimeout: 060\n", "'responseTimeout' is 060, which YAML reads as 48"),
        ("responseTimeout: 10:00\n", "'responseTimeout' is 10:00, which YAML reads as 600"),
        ("handler:\n  max_items: 010\n", "'max_items' is 010, which YAML reads as 8"),
        ("deviceType: GPU\n", "'deviceType' must be 'cpu' or 'gpu', not 'GPU'"),
        ("parallelType: dp\n", "'parallelType' must be 'none' or 'pp' or"),
        ("deviceIds: [0, -1]\n", "'deviceIds' must be a list of integers of at least 0"),
        ("clientTimeoutInMills: 500\n", "without any answer"),
        ("handler:\n  max_itens: 3\n", "'handler.max_itens'"),
        ("handler:\n  engine: fast\n", "'handler.engine'"),
        ("handler: [1]\n", "'handler' must be a mapping"),
    ],
)
def test_what_is_refused_names_the_key_and_what_it_may_be(content: str, words: str, layout: Layout) -> None:
    assert words in refused(layout, content)


def test_what_the_handler_reads(layout: Layout) -> None:
    content = (
        "deviceType: gpu\ndeviceIds: [0, 1]\nparallelType: none\nhandler:\n  engine: torch\n  max_items: 4\n"
    )
    config = read(layout, content)
    assert config == (content.encode(), "torch", "auto", {"engine": "torch", "max_items": 4})


def test_a_handler_of_somebodys_own_may_have_keys_of_its_own(layout: Layout) -> None:
    content = "batchSize: 2\nmicro_batching: {parallelism: 2}\nhandler:\n  anything: [1]\n"
    assert read(layout, content, OWN).settings == {"anything": [1]}
    assert "did you mean 'batchSize'" in refused(layout, "batch_size: 2\n", OWN)
    assert "'handler' must be a mapping" in refused(layout, "handler: 3\n", OWN)
    assert "'batchSize' must be" in refused(layout, "batchSize: two\n", OWN)
