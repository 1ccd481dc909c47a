"""What of the environment reaches the workers."""

import pytest

from torchserve_models.serving.run_config.worker_environment import allowed


@pytest.mark.parametrize(
    "name",
    [
        *(
            "PATH",
            "HOME",
            "LANG",
            "LC_ALL",
            "TZ",
            "OMP_NUM_THREADS",
            "CUDA_VISIBLE_DEVICES",
            "LD_LIBRARY_PATH",
        ),
        *("TORCHINDUCTOR_CACHE_DIR", "ONEDNN_MAX_CPU_ISA", "PYTHONUNBUFFERED", "TORCHSERVE_ACCESS_LOG"),
    ],
)
def test_what_a_worker_needs_is_passed_on(name):
    assert allowed({name: "x"}) == {name: "x"}


@pytest.mark.parametrize(
    "name",
    [
        *("HF_TOKEN", "AWS_SECRET_ACCESS_KEY", "AWS_REGION", "DATABASE_URL", "NOTIFY_SOCKET", "PYTHONPATH"),
        *("TS_CONFIG_FILE", "TORCHSERVE_API_KEY", "NVIDIA_API_KEY", "CUDA_TOKEN", "JAVA_TOOL_OPTIONS"),
    ],
)
def test_secrets_and_everything_else_are_not(name):
    assert allowed({name: "x"}) == {}


def test_a_name_can_be_passed_on_by_name():
    environment = {
        "TORCHSERVE_MODELS_PASS_ENV": "MY_URL, MY_TOKEN",
        "MY_URL": "u",
        "MY_TOKEN": "t",
        "MINE": "m",
    }
    assert allowed(environment) == {"MY_URL": "u", "MY_TOKEN": "t"}
