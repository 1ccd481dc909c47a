"""config.properties: what is read, what is refused, what one run gets."""

import re
import stat
from pathlib import Path

import pytest
import yaml

from torchserve_models.paths import ROOT
from torchserve_models.serving.errors import ConfigError
from torchserve_models.serving.run_config import config_file
from torchserve_models.serving.run_config.ports import Ports
from torchserve_models.serving.run_config.run_plan import Plan, plan


def file(tmp_path, text):
    path = tmp_path / "config.properties"
    path.write_text(text)
    return path


def test_the_file_of_the_repository_says_what_the_project_promises():
    settings = config_file.read()
    for name in ("inference", "management", "metrics"):
        assert settings[f"{name}_address"].startswith("http://127.0.0.1:")
        assert settings.get(f"grpc_{name}_address", "127.0.0.1") == "127.0.0.1"
    ports = Ports.from_settings(settings)
    assert ports == Ports(8080, 8081, 8082, 7070, 7071)
    assert settings["metrics_mode"] == "prometheus"
    assert settings["decode_input_request"] == "false"
    assert settings["ts_open_inference_protocol"] == "true"
    assert settings["enable_envvars_config"] == "false"


def test_no_url_is_allowed():
    pattern = config_file.read()["allowed_urls"]
    for url in ("http://a/b.mar", "https://a/b.mar", "file:///a/b.mar", "s3://a/b.mar", "a.mar", "", "$."):
        assert not re.fullmatch(pattern, url)


def test_relative_paths_start_at_the_file(tmp_path):
    settings = config_file.read(file(tmp_path, "model_store=store\nmetrics_config=/elsewhere/metrics.yaml\n"))
    assert settings == {"model_store": str(tmp_path / "store"), "metrics_config": "/elsewhere/metrics.yaml"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "job_queue_sise=1",
            "line 1: TorchServe has no setting 'job_queue_sise'; did you mean 'job_queue_size'",
        ),
        ("# a\n\nnonsense", "line 3: expected one line `key=value`"),
        ("vmargs=-Xmx1g \\\n", "line 1: expected one line"),
        ("debug=true\ndebug=false", "line 2: 'debug' is set twice"),
    ],
)
def test_a_wrong_line_is_named(tmp_path, text, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        config_file.read(file(tmp_path, text))


def test_a_missing_file_is_a_configuration_error(tmp_path):
    with pytest.raises(ConfigError, match="cannot be read"):
        config_file.read(tmp_path / "config.properties")


def test_a_run_changes_ports_store_and_models_and_nothing_else(tmp_path):
    ours = config_file.read()
    made = plan(["a", "b"], tmp_path / "store", tmp_path / "run", offset=100)
    changed = {key for key in made.settings if made.settings[key] != ours.get(key)}
    assert changed == {
        "inference_address",
        "management_address",
        "metrics_address",
        "health_address",
        "grpc_inference_port",
        "grpc_management_port",
        "model_store",
        "load_models",
        "metrics_config",
    }
    assert made.settings["inference_address"] == "http://127.0.0.1:8180"
    assert made.settings["grpc_management_port"] == "7171"
    assert made.settings["load_models"] == "a=a.mar,b=b.mar"
    assert made.endpoints.inference == "http://127.0.0.1:8180"
    assert made.endpoints.grpc_inference == "127.0.0.1:7170"


def test_what_is_written_is_read_back(tmp_path):
    settings = {"model_store": "/a b/c", "load_models": "a=a.mar", "allowed_urls": "$."}
    config_file.write(tmp_path / "run.properties", settings)
    assert config_file.read(tmp_path / "run.properties") == settings


def test_java_reads_back_any_path(tmp_path):
    path = tmp_path / "run.properties"
    config_file.write(path, {"model_store": "/Modèle/模型/😀\\x"})
    assert path.read_bytes().splitlines()[1] == (rb"model_store=/Mod\u00e8le/\u6a21\u578b/\ud83d\ude00\\x")


def test_nobody_else_may_read_it(tmp_path):
    path = tmp_path / "run.properties"
    path.write_text("of an older version")
    path.chmod(0o644)
    config_file.write(path, {"keystore_pass": "secret"})
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_plan_survives_its_way_to_another_process(tmp_path):
    made = plan(["a"], tmp_path, tmp_path / "run", Ports(1, 2, 3, 4, 5))
    again = Plan.from_json(made.as_json())
    assert again == made
    assert isinstance(again.store, Path)


def test_every_metric_of_the_handlers_is_declared_with_its_dimensions():
    from handlers.core import metrics as names

    declared = yaml.safe_load((ROOT / "torchserve_models" / "serving" / "metrics.yaml").read_text())[
        "model_metrics"
    ]
    ours = {
        entry["name"]: (kind, entry["dimensions"])
        for kind, entries in declared.items()
        for entry in entries
        if entry["name"].startswith("handler_")
    }
    assert ours == {
        names.REQUESTS: ("counter", ["ModelName"]),
        names.FAILED_ITEMS: ("counter", ["ModelName", "ErrorType"]),
        names.SKIPPED_REQUESTS: ("counter", ["ModelName", "Reason"]),
        names.GENERATED_TOKENS: ("counter", ["ModelName"]),
        names.CPU_SECONDS: ("counter", ["ModelName"]),
        names.MEMORY_BYTES: ("gauge", ["ModelName"]),
        names.BATCH_SIZE: ("histogram", ["ModelName"]),
        names.DECODE_SECONDS: ("histogram", ["ModelName"]),
        names.INFERENCE_SECONDS: ("histogram", ["ModelName"]),
        names.ENCODE_SECONDS: ("histogram", ["ModelName"]),
    }


@pytest.mark.parametrize(("host", "reached"), [("0.0.0.0", "127.0.0.1"), ("::", "[::1]")])
def test_a_host_opens_inference_and_metrics_but_not_management(tmp_path, host, reached):
    made = plan(["a"], tmp_path, tmp_path, offset=1, host=host)
    assert made.settings["grpc_inference_address"] == host
    assert made.endpoints.inference == f"http://{reached}:8081"
    assert made.endpoints.metrics == f"http://{reached}:8083"
    assert made.settings["management_address"] == "http://127.0.0.1:8082"
    assert made.settings["grpc_management_address"] == "127.0.0.1"
