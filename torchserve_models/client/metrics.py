"""TorchServe's metrics address: Prometheus text, read with Prometheus' own parser."""

from collections.abc import Sequence

from torchserve_models.client.calls import Call, RestCall
from torchserve_models.client.errors import UnexpectedAnswer
from torchserve_models.client.results import Metrics, Sample

# Without it TorchServe might choose OpenMetrics, which another parser reads.
HEADERS = {"accept": "text/plain; version=0.0.4"}


def metrics_call(names: Sequence[str] = ()) -> Call[Metrics]:
    """`names` asks the server for those metrics only."""
    from urllib.parse import urlencode

    query = urlencode([("name[]", name) for name in names])
    return RestCall("metrics", "GET", f"/metrics?{query}" if query else "/metrics", read_metrics, HEADERS)


def read_metrics(body: bytes) -> Metrics:
    from prometheus_client.parser import text_string_to_metric_families

    try:
        families = list(text_string_to_metric_families(body.decode()))
    except (UnicodeDecodeError, ValueError) as error:
        raise UnexpectedAnswer(f"the answer is not Prometheus text: {error}") from None
    return Metrics(
        tuple(
            Sample(line.name, dict(line.labels), float(line.value))
            for family in families
            for line in family.samples
        )
    )
