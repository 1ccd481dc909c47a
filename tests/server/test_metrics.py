"""The metrics port: valid Prometheus text, and equal counts for all protocols."""

import subprocess
import time

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from handlers.core.metrics import FLUSH_INTERVAL_S, HISTOGRAM_BOUNDS
from tests.tools import needs
from torchserve_models.client import Client, ClientError
from torchserve_models.client.settings import PROTOCOLS
from torchserve_models.serving.health import model_states, probe_scheduler
from training.images import draw_image
from training.reports import draw_example

_, IMAGE = draw_image(31, 4)
TEXT, _ = draw_example(31, 4)


@pytest.fixture(autouse=True)
def _no_probes(monkeypatch):
    """Disable the supervisor's probes of idle models, which count as requests."""
    monkeypatch.setattr(probe_scheduler, "IDLE_LIMIT_S", 1e9)


def scrape(server):
    response = httpx.get(f"{server.metrics}/metrics", timeout=10)
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/plain")
    return response.text


def values(server, model):
    """Return the handler metrics of a model by sample name and its labels except model, version and host."""
    samples = {}
    with Client(endpoints=server.endpoints) as client:
        for sample in client.metrics():
            labels = dict(sample.labels)
            if sample.name.startswith("handler_") and labels.pop("ModelName", None) == model:
                del labels["ModelVersion"], labels["Hostname"]
                samples[(sample.name, *labels.values())] = sample.value
    return samples


def settled_values(server, model):
    """Return `values` once workers have passed on the values of earlier requests."""
    time.sleep(3 * FLUSH_INTERVAL_S)
    return values(server, model)


def wait_for_increases(server, model, before, requests):
    """Return the increase of each sample once `requests` more requests are counted, shortly after the answers."""
    deadline = time.monotonic() + 10
    while True:
        after = values(server, model)
        delta = {
            key: value - before.get(key, 0) for key, value in after.items() if value != before.get(key, 0)
        }
        if delta.get(("handler_requests_total",)) == requests:
            time.sleep(0.2)
            if values(server, model) == after:
                return delta
        assert time.monotonic() < deadline, f"expected {requests} more requests, found {delta}"
        time.sleep(0.1)


def test_metrics_are_parsed_by_the_reference_parser(server):
    families = {family.name: family for family in text_string_to_metric_families(scrape(server))}
    for name in (
        "handler_worker_starts",
        "handler_requests",
        "handler_failed_items",
        "handler_generated_tokens",
        "ts_inference_requests",
    ):
        assert families[name].type == "counter"


def test_handler_metrics_have_the_version_of_the_model(server):
    with Client(endpoints=server.endpoints) as client:
        versions = {(name, client.describe(name).version) for name in server.models}
        metrics = client.metrics()
    for name in ("handler_requests_total", "handler_worker_starts_total", "handler_memory_bytes"):
        samples = [sample for sample in metrics.samples if sample.name == name]
        assert versions <= {(sample.labels["ModelName"], sample.labels["ModelVersion"]) for sample in samples}


def test_cpu_time_and_memory_of_workers_are_exported(server):
    """The values are updated with requests, at most once a second."""
    with Client(endpoints=server.endpoints) as client:
        client.classify("resnet-50", IMAGE)
        first = wait_for_usage(server, "resnet-50")
        deadline = time.monotonic() + 10
        while wait_for_usage(server, "resnet-50")[0] == first[0]:
            assert time.monotonic() < deadline, "the CPU time does not increase while requests are answered"
            client.classify("resnet-50", IMAGE)
    assert first[0] > 0.5  # loading the model takes longer
    # The supervisor reports about the same memory.
    (model,) = [model for model in model_states.inspect(server.endpoints) if model.name == "resnet-50"]
    assert first[1] == pytest.approx(model.workers[0].memory, rel=0.5)


def wait_for_usage(server, model):
    """Return the CPU seconds and memory in bytes, which are exported with the first request."""
    deadline = time.monotonic() + 10
    while True:
        samples = values(server, model)
        if ("handler_cpu_seconds_total",) in samples and ("handler_memory_bytes",) in samples:
            return samples[("handler_cpu_seconds_total",)], samples[("handler_memory_bytes",)]
        assert time.monotonic() < deadline, f"only {samples}"
        time.sleep(0.1)


def test_histograms_have_buckets_sum_and_count(server):
    """Buckets are cumulative, so the last one contains all values."""
    with Client(endpoints=server.endpoints) as client:
        client.classify("resnet-50", IMAGE)
        wait_for_usage(server, "resnet-50")
    samples = values(server, "resnet-50")
    for name, bounds in HISTOGRAM_BOUNDS.items():
        buckets = {labels[0]: value for (key, *labels), value in samples.items() if key == f"{name}_bucket"}
        counts = [count for _, count in sorted(buckets.items(), key=lambda bucket: float(bucket[0]))]
        assert {float(bound) for bound in buckets} == {*bounds, float("inf")}
        assert counts == sorted(counts)
        assert buckets["+Inf"] == samples[(f"{name}_count",)]
        assert samples[(f"{name}_sum",)] > 0


@needs("promtool")
def test_promtool_parses_the_metrics(server):
    """promtool exits with 3 because of the names of TorchServe's metrics."""
    checked = subprocess.run(
        ["promtool", "check", "metrics"], input=scrape(server), text=True, capture_output=True, timeout=60
    )
    assert checked.returncode in (0, 3), checked.stderr


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_image_metrics_are_equal_over_every_protocol(server, protocol):
    before = settled_values(server, "resnet-50")
    with Client(endpoints=server.endpoints, protocol=protocol) as client:
        for _ in range(3):
            client.classify("resnet-50", IMAGE)
        with pytest.raises(ClientError):
            client.classify("resnet-50", b"no image")
    delta = wait_for_increases(server, "resnet-50", before, 4)
    assert delta[("handler_failed_items_total", "InvalidImage")] == 1
    assert delta[("handler_batch_size_count",)] == delta[("handler_batch_size_sum",)] == 3
    assert delta[("handler_decode_seconds_count",)] == delta[("handler_encode_seconds_count",)] == 4
    assert delta[("handler_inference_seconds_count",)] == 3
    assert delta[("handler_inference_seconds_sum",)] > 0
    if protocol != "open-inference-grpc":  # it does not carry the start time of a request
        assert delta[("handler_request_seconds_count",)] == 4
        assert delta[("handler_request_seconds_sum",)] > delta[("handler_inference_seconds_sum",)]
    assert ("handler_generated_tokens_total",) not in delta


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_token_metrics_are_equal_over_every_protocol(server, protocol):
    before = settled_values(server, "t5-small")
    with Client(endpoints=server.endpoints, protocol=protocol) as client:
        client.summarize("t5-small", TEXT, min_new_tokens=7, max_new_tokens=7)
        with pytest.raises(ClientError):
            client.summarize("t5-small", TEXT, num_beams=0)
    delta = wait_for_increases(server, "t5-small", before, 2)
    assert delta[("handler_generated_tokens_total",)] == 7
    assert delta[("handler_failed_items_total", "InvalidParameter")] == 1
