"""Filter the environment variables that reach the front end and its workers."""

import re
from collections.abc import Mapping

PASS_VARIABLE = "TORCHSERVE_MODELS_PASS_ENV"
"""Environment variable with names of additional variables to pass on, separated by commas or spaces."""

_ALLOWED = frozenset(
    """
    PATH HOME USER LOGNAME SHELL LANG LANGUAGE TZ TERM XDG_CACHE_HOME LD_LIBRARY_PATH LD_PRELOAD GLIBC_TUNABLES
    LRU_CACHE_CAPACITY
    SSL_CERT_FILE SSL_CERT_DIR HF_HOME HF_HUB_CACHE TOKENIZERS_PARALLELISM VIRTUAL_ENV
    """.split()  # noqa: SIM905
)
_ALLOWED_PREFIXES = (
    *(
        "LC_",
        "PYTHON",
        "MALLOC_",
        "OMP_",
        "GOMP_",
        "KMP_",
        "MKL_",
        "OPENBLAS_",
        "NUMEXPR_",
        "ONEDNN_",
        "CT2_",
        "DNNL_",
    ),
    *("OV_", "OPENVINO_", "TORCH", "PYTORCH_", "ATEN_", "THP_", "TRITON_", "TRANSFORMERS_", "CUDA", "CUDNN_"),
    *("CUBLAS", "NCCL_", "NVIDIA_", "ROCM_", "HIP_", "HSA_", "HANDLER_"),
)
# Would reach the workers (PYTHONPATH precedes the archive's code) or override config.properties. Other names
# that TorchServe reads (TS_...) are not allowed in the first place.
_DENIED = frozenset({"PYTHONPATH", "PYTHONHOME", "PYTHONSTARTUP", PASS_VARIABLE})
_SECRET = re.compile(r"(?:TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIALS?|_KEY)$")


def allowed_variables(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the variables to pass on. Workers run third-party code and must not have access to tokens."""
    passed_names = set(re.split(r"[,\s]+", environment.get(PASS_VARIABLE, "")))
    return {
        name: value
        for name, value in environment.items()
        if name in passed_names or (name not in _DENIED and _is_allowed(name))
    }


def _is_allowed(name: str) -> bool:
    return name in _ALLOWED or (name.startswith(_ALLOWED_PREFIXES) and not _SECRET.search(name))
