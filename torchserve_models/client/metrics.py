"""The metrics of a server: Prometheus text, read with the parser of prometheus_client."""

import re
from collections.abc import Sequence

from torchserve_models.client.call_types import Call, RestCall
from torchserve_models.client.errors import UnexpectedAnswer
from torchserve_models.client.results import Metrics, Sample

HEADERS = {"accept": "text/plain; version=0.0.4"}
"""Headers that select the Prometheus format; TorchServe can also send OpenMetrics, which needs another parser."""

_SERIES_OF_HISTOGRAM = re.compile(r"^# TYPE \w+_(?:bucket|sum|count) counter\n", re.MULTILINE)
"""Types of the series of the handlers' histograms (handlers/core/metrics.py). The parser would rename them."""


def metrics_call(names: Sequence[str] = ()) -> Call[Metrics]:
    """Return the call for the metrics with these names, or for all metrics if `names` is empty."""
    from urllib.parse import urlencode

    query = urlencode([("name[]", name) for name in names])
    return RestCall("metrics", "GET", f"/metrics?{query}" if query else "/metrics", read_metrics, HEADERS)


def read_metrics(body: bytes) -> Metrics:
    """Parse Prometheus text. Raises UnexpectedAnswer for any other text."""
    from prometheus_client.parser import text_string_to_metric_families

    try:
        families = list(text_string_to_metric_families(_SERIES_OF_HISTOGRAM.sub("", body.decode())))
    except (UnicodeDecodeError, ValueError) as error:
        raise UnexpectedAnswer(f"the answer is not in the Prometheus text format: {error}") from None
    return Metrics(
        tuple(
            Sample(line.name, dict(line.labels), float(line.value))
            for family in families
            for line in family.samples
        )
    )
