"""Tests of config.properties: reading, invalid lines, and the settings of one run."""

import re
import stat
from pathlib import Path

import pytest
import yaml

from torchserve_models.paths import ROOT
from torchserve_models.serving.errors import ConfigError
from torchserve_models.serving.run_config import config_file
from torchserve_models.serving.run_config.ports import Ports
from torchserve_models.serving.run_config.run_plan import RunPlan, plan_run


def file(tmp_path, text):
    path = tmp_path / "config.properties"
    path.write_text(text)
    return path


def test_repository_configuration_has_the_documented_settings():
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


def test_urls_are_not_allowed():
    pattern = config_file.read()["allowed_urls"]
    for url in ("http://a/b.mar", "https://a/b.mar", "file:///a/b.mar", "s3://a/b.mar", "a.mar", "", "$."):
        assert not re.fullmatch(pattern, url)


def test_relative_paths_are_resolved_from_the_file(tmp_path):
    settings = config_file.read(file(tmp_path, "model_store=store\nmetrics_config=/elsewhere/metrics.yaml\n"))
    assert settings == {"model_store": str(tmp_path / "store"), "metrics_config": "/elsewhere/metrics.yaml"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "job_queue_sise=1",
            "line 1: TorchServe has no setting 'job_queue_sise'; did you mean 'job_queue_size'",
        ),
        ("# a\n\nnonsense", "line 3: expected `key=value` on one line"),
        ("vmargs=-Xmx1g \\\n", "line 1: expected `key=value` on one line"),
        ("debug=true\ndebug=false", "line 2: 'debug' is set twice"),
    ],
)
def test_invalid_line_is_named(tmp_path, text, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        config_file.read(file(tmp_path, text))


def test_missing_file_is_a_configuration_error(tmp_path):
    with pytest.raises(ConfigError, match="cannot be read"):
        config_file.read(tmp_path / "config.properties")


def test_run_changes_only_ports_store_and_models(tmp_path):
    defaults = config_file.read()
    plan = plan_run(["a", "b"], tmp_path / "store", tmp_path / "run", offset=100)
    changed = {key for key in plan.settings if plan.settings[key] != defaults.get(key)}
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
    assert plan.settings["inference_address"] == "http://127.0.0.1:8180"
    assert plan.settings["grpc_management_port"] == "7171"
    assert plan.settings["load_models"] == "a=a.mar,b=b.mar"
    assert plan.endpoints.inference == "http://127.0.0.1:8180"
    assert plan.endpoints.grpc_inference == "127.0.0.1:7170"


def test_written_settings_are_read_back(tmp_path):
    settings = {"model_store": "/a b/c", "load_models": "a=a.mar", "allowed_urls": "$."}
    config_file.write(tmp_path / "run.properties", settings)
    assert config_file.read(tmp_path / "run.properties") == settings


def test_java_reads_any_path(tmp_path):
    path = tmp_path / "run.properties"
    config_file.write(path, {"model_store": "/Modèle/模型/😀\\x"})
    assert path.read_bytes().splitlines()[1] == (rb"model_store=/Mod\u00e8le/\u6a21\u578b/\ud83d\ude00\\x")


def test_file_is_readable_by_its_owner_only(tmp_path):
    path = tmp_path / "run.properties"
    path.write_text("of an older version")
    path.chmod(0o644)
    config_file.write(path, {"keystore_pass": "secret"})
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_plan_is_serialized_as_json(tmp_path):
    plan = plan_run(["a"], tmp_path, tmp_path / "run", Ports(1, 2, 3, 4, 5))
    again = RunPlan.from_json(plan.as_json())
    assert again == plan
    assert isinstance(again.store, Path)


def test_every_handler_metric_is_declared_with_its_dimensions():
    from handlers.core import metrics as names

    declared = yaml.safe_load((ROOT / "torchserve_models" / "serving" / "metrics.yaml").read_text())[
        "model_metrics"
    ]
    known_settings = {
        entry["name"]: (kind, entry["dimensions"])
        for kind, entries in declared.items()
        for entry in entries
        if entry["name"].startswith("handler_")
    }
    labels = ["ModelName", "ModelVersion"]
    expected = {
        names.WORKER_STARTS: ("counter", labels),
        names.REQUESTS: ("counter", labels),
        names.FAILED_ITEMS: ("counter", [*labels, "ErrorType"]),
        names.SKIPPED_REQUESTS: ("counter", [*labels, "Reason"]),
        names.GENERATED_TOKENS: ("counter", labels),
        names.DRAFT_TOKENS: ("counter", labels),
        names.ACCEPTED_DRAFT_TOKENS: ("counter", labels),
        names.CPU_SECONDS: ("counter", labels),
        names.MEMORY_BYTES: ("gauge", labels),
    }
    for name in names.HISTOGRAM_BOUNDS:
        expected[f"{name}_bucket"] = ("counter", [*labels, "le"])
        expected[f"{name}_sum"] = expected[f"{name}_count"] = ("counter", labels)
    assert known_settings == expected


@pytest.mark.parametrize(("host", "reached"), [("0.0.0.0", "127.0.0.1"), ("::", "[::1]")])
def test_host_applies_to_inference_and_metrics_but_not_management(tmp_path, host, reached):
    plan = plan_run(["a"], tmp_path, tmp_path, offset=1, host=host)
    assert plan.settings["grpc_inference_address"] == host
    assert plan.endpoints.inference == f"http://{reached}:8081"
    assert plan.endpoints.metrics == f"http://{reached}:8083"
    assert plan.settings["management_address"] == "http://127.0.0.1:8082"
    assert plan.settings["grpc_management_address"] == "127.0.0.1"
