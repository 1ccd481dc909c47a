"""Read config.properties and write the copy of one run, with absolute paths, ports and models."""

import difflib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from torchserve_models.paths import ROOT
from torchserve_models.serving.errors import ConfigError

FILE = ROOT / "config.properties"
METRICS_CONFIG = Path(__file__).parents[1] / "metrics.yaml"

# What org.pytorch.serve.util.ConfigManager of TorchServe 0.12.0 reads; it ignores anything else without a word.
# `health_address` is the supervisor's, which is ours.
KNOWN_KEYS = frozenset(
    """
    health_address debug inference_address management_address metrics_address load_models blacklist_env_vars
    default_workers_per_model default_response_timeout default_startup_timeout unregister_model_timeout
    number_of_netty_threads netty_client_threads job_queue_size number_of_gpu metrics_config metrics_mode
    model_metrics_auto_detect disable_system_metrics ipex_enable ipex_gpu_enable cpu_launcher_enable
    cpu_launcher_args async_logging cors_allowed_origin cors_allowed_methods cors_allowed_headers
    decode_input_request keystore keystore_pass keystore_type certificate_file private_key_file max_request_size
    max_response_size limit_max_image_pixels default_service_handler service_envelope model_server_home
    model_store prefer_direct_buffer allowed_urls install_py_dep_per_model enable_metrics_api
    grpc_inference_address grpc_management_address grpc_inference_port grpc_management_port
    grpc_inference_max_connection_age_ms grpc_management_max_connection_age_ms
    grpc_inference_max_connection_age_grace_ms grpc_management_max_connection_age_grace_ms enable_grpc_ssl
    initial_worker_port initial_distribution_port workflow_store cpp_log_config ts_open_inference_protocol
    token_expiration_min ts_header_key_sequence_id ts_header_key_sequence_start ts_header_key_sequence_end
    disable_token_authorization enable_model_api use_native_io io_ratio metric_time_interval
    enable_envvars_config model_snapshot models version system_metrics_cmd use_env_allowed_urls vmargs
    plugins_path
    """.split()  # noqa: SIM905
)

_PATHS = (
    "model_store",
    "workflow_store",
    "metrics_config",
    "keystore",
    "certificate_file",
    "private_key_file",
)


def read(path: Path = FILE) -> dict[str, str]:
    """Read a properties file: lines `key=value`, comments after '#'; relative paths are made absolute.

    Raises ConfigError for anything else, with the line and what was probably meant.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from error
    settings: dict[str, str] = {}
    for number, line in enumerate(lines, start=1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        key, equals, value = (part.strip() for part in text.partition("="))
        if not equals or value.endswith("\\"):
            raise ConfigError(f"{path}, line {number}: expected one line `key=value`, not {text!r}")
        if key not in KNOWN_KEYS:
            near = difflib.get_close_matches(key, KNOWN_KEYS, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise ConfigError(f"{path}, line {number}: TorchServe has no setting {key!r}{hint}")
        if key in settings:
            raise ConfigError(f"{path}, line {number}: {key!r} is set twice")
        settings[key] = value
    for key in _PATHS:
        if key in settings:
            settings[key] = str(path.parent / settings[key])
    return settings


def for_run(
    settings: Mapping[str, str], ports: Mapping[str, str], store: Path, models: Sequence[str]
) -> dict[str, str]:
    """Return the settings of one run: `ports` (see Ports.settings) and `store` replace those of the file.

    The models are loaded from NAME.mar under the name that scripts use for them.
    """
    load = ",".join(f"{name}={name}.mar" for name in models)
    return {
        "metrics_config": str(METRICS_CONFIG),
        **settings,
        **ports,
        "model_store": str(store),
        "load_models": load,
    }


def write(path: Path, settings: Mapping[str, str]) -> None:
    """Write a properties file for Java, readable by its owner only: it may hold a password."""
    lines = [f"{key}={_escaped(value)}" for key, value in settings.items()]
    path.touch(0o600)
    path.chmod(0o600)
    path.write_text(
        "\n".join(["# Made by scripts/serve from config.properties for this run.", *lines, ""]), "ascii"
    )


def _escaped(value: str) -> str:
    """Escape a value for java.util.Properties: backslashes, and non-ASCII characters as UTF-16 units."""

    def units(match: re.Match[str]) -> str:
        units = match[0].encode("utf-16-be", "surrogatepass").hex()
        return "".join(f"\\u{units[at : at + 4]}" for at in range(0, len(units), 4))

    return re.sub(r"[^\x00-\x7f]", units, value.replace("\\", "\\\\"))
