"""Tests of reading metrics in Prometheus text."""

import pytest

from torchserve_models.client.errors import UnexpectedAnswer
from torchserve_models.client.metrics import read_metrics

HISTOGRAM = b"""\
# HELP handler_batch_size_bucket Torchserve prometheus counter metric with unit: Count
# TYPE handler_batch_size_bucket counter
handler_batch_size_bucket{ModelName="m",le="+Inf",} 2.0
# TYPE handler_batch_size_sum counter
handler_batch_size_sum{ModelName="m",} 5.0
# TYPE handler_requests_total counter
handler_requests_total{ModelName="m",} 3.0
"""


def test_series_of_histograms_keep_their_names():
    """TorchServe serves the histograms of the handlers as counters."""
    metrics = read_metrics(HISTOGRAM)
    assert {sample.name: sample.value for sample in metrics} == {
        "handler_batch_size_bucket": 2,
        "handler_batch_size_sum": 5,
        "handler_requests_total": 3,
    }


def test_other_text_is_rejected():
    with pytest.raises(UnexpectedAnswer, match="Prometheus text format"):
        read_metrics(b"<html>\xff")
