"""How many bytes of request bodies TorchServe may hold at a time: nginx bounds them by `max_conns`."""

import httpx
from prometheus_client.parser import text_string_to_metric_families

from torchserve_models.serving.metrics import MEMORY_BUDGET

_TIMEOUT_S = 2.0
_METRIC, _PART = next(iter(MEMORY_BUDGET.describe())).name, "body_bytes"


def supervised_body_bytes(health: str) -> int | None:
    """The number in the supervisor's memory budget; None where no supervisor answers at the URL `health`."""
    try:
        answer = httpx.get(f"{health}/metrics", timeout=_TIMEOUT_S, trust_env=False).raise_for_status()
        for family in text_string_to_metric_families(answer.text):
            for sample in family.samples:
                if sample.name == _METRIC and sample.labels.get("part") == _PART:
                    return int(sample.value)
    except (httpx.HTTPError, ValueError):
        pass
    return None
