"""Read the limit of request bodies in TorchServe from the supervisor; nginx's `max_conns` enforces it."""

import httpx
from prometheus_client.parser import text_string_to_metric_families

from torchserve_models.serving.metrics import MEMORY_BUDGET

_TIMEOUT_S = 2.0
_METRIC, _PART = next(iter(MEMORY_BUDGET.describe())).name, "body_bytes"


def supervised_body_bytes(health: str) -> int | None:
    """Return the bytes in the memory budget of the supervisor at the URL `health`; None if it does not respond."""
    try:
        response = httpx.get(f"{health}/metrics", timeout=_TIMEOUT_S, trust_env=False).raise_for_status()
        for family in text_string_to_metric_families(response.text):
            for sample in family.samples:
                if sample.name == _METRIC and sample.labels.get("part") == _PART:
                    return int(sample.value)
    except (httpx.HTTPError, ValueError):
        pass
    return None
