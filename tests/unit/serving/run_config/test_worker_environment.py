"""Tests of the environment variables that are passed on to workers."""

import pytest

from torchserve_models.serving.run_config.worker_environment import allowed_variables


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
        *("TORCHINDUCTOR_CACHE_DIR", "PYTHONUNBUFFERED", "TORCHSERVE_ACCESS_LOG"),
        *("ONEDNN_MAX_CPU_ISA", "ATEN_CPU_CAPABILITY", "MKL_ENABLE_INSTRUCTIONS", "CT2_FORCE_CPU_ISA"),
    ],
)
def test_required_variables_are_passed_on(name):
    assert allowed_variables({name: "x"}) == {name: "x"}


@pytest.mark.parametrize(
    "name",
    [
        *("HF_TOKEN", "AWS_SECRET_ACCESS_KEY", "AWS_REGION", "DATABASE_URL", "NOTIFY_SOCKET", "PYTHONPATH"),
        *("TS_CONFIG_FILE", "TORCHSERVE_API_KEY", "NVIDIA_API_KEY", "CUDA_TOKEN", "JAVA_TOOL_OPTIONS"),
    ],
)
def test_secrets_and_other_variables_are_not_passed_on(name):
    assert allowed_variables({name: "x"}) == {}


def test_named_variables_are_passed_on():
    environment = {
        "TORCHSERVE_MODELS_PASS_ENV": "MY_URL, MY_TOKEN",
        "MY_URL": "u",
        "MY_TOKEN": "t",
        "MINE": "m",
    }
    assert allowed_variables(environment) == {"MY_URL": "u", "MY_TOKEN": "t"}
