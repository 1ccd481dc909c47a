"""The metrics port: readable to Prometheus, and the same counts whichever way a request came."""

import subprocess
import time

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.tools import needs
from torchserve_models.client import Client, ClientError
from torchserve_models.client.settings import PROTOCOLS
from torchserve_models.serving.health import model_states, probe_scheduler
from training.images import draw_image
from training.reports import report

_, IMAGE = draw_image(31, 4)
TEXT, _ = report(31, 4)
HISTOGRAMS = (
    "handler_batch_size",
    "handler_decode_seconds",
    "handler_inference_seconds",
    "handler_encode_seconds",
)


@pytest.fixture(autouse=True)
def without_questions(monkeypatch):
    """The supervisor's questions to idle models count as requests."""
    monkeypatch.setattr(probe_scheduler, "IDLE_LIMIT_S", 1e9)


def scrape(server):
    response = httpx.get(f"{server.metrics}/metrics", timeout=10)
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/plain")
    return response.text


def values(server, model):
    """Every sample of our own metrics for that model; labels other than the model's and host's in the key."""
    found = {}
    for family in text_string_to_metric_families(scrape(server)):
        for sample in family.samples:
            labels = dict(sample.labels)
            if sample.name.startswith("handler_") and labels.pop("ModelName", None) == model:
                labels.pop("Hostname")
                found[(sample.name, *labels.values())] = sample.value
    return found


def grown(server, model, before, requests):
    """By how much each sample grew since; the front end reads the worker's metrics a little after the answers."""
    deadline = time.monotonic() + 10
    while True:
        after = values(server, model)
        delta = {
            key: value - before.get(key, 0) for key, value in after.items() if value != before.get(key, 0)
        }
        # Of all that a batch writes, the encoding's time comes last; only what the process used may follow.
        if delta.get(("handler_requests_total",)) == requests and ("handler_encode_seconds_count",) in delta:
            time.sleep(0.2)
            if values(server, model) == after:
                return delta
        assert time.monotonic() < deadline, f"expected {requests} more requests, found {delta}"
        time.sleep(0.1)


def test_a_real_parser_reads_all_of_it(server):
    families = {family.name: family for family in text_string_to_metric_families(scrape(server))}
    for name in HISTOGRAMS:
        assert families[name].type == "histogram"
    for name in (
        "handler_requests",
        "handler_failed_items",
        "handler_generated_tokens",
        "ts_inference_requests",
    ):
        assert families[name].type == "counter"
    models = {sample.labels["ModelName"] for sample in families["handler_requests"].samples}
    assert models >= set(server.models)


def test_what_a_worker_uses_is_told(server):
    """At most once a second, with the requests."""
    with Client(endpoints=server.endpoints) as client:
        client.classify("resnet-50", IMAGE)
        first = used(server, "resnet-50")
        deadline = time.monotonic() + 10
        while used(server, "resnet-50")[0] == first[0]:
            assert time.monotonic() < deadline, "the CPU time stands still while requests are answered"
            client.classify("resnet-50", IMAGE)
    assert first[0] > 0.5  # loading the model alone takes that
    # The supervisor sees the same: main memory of the one worker.
    (model,) = [each for each in model_states.inspect(server.endpoints) if each.name == "resnet-50"]
    assert first[1] == pytest.approx(model.workers[0].memory, rel=0.5)


def used(server, model):
    """CPU seconds and bytes; once there has been a request, they are there."""
    deadline = time.monotonic() + 10
    while True:
        found = values(server, model)
        if ("handler_cpu_seconds_total",) in found and ("handler_memory_bytes",) in found:
            return found[("handler_cpu_seconds_total",)], found[("handler_memory_bytes",)]
        assert time.monotonic() < deadline, f"only {found}"
        time.sleep(0.1)


def test_histograms_are_whole(server):
    """Each bucket holds those below it, the last one all."""
    for family in text_string_to_metric_families(scrape(server)):
        if family.name not in HISTOGRAMS:
            continue
        for model in server.models:
            mine = [sample for sample in family.samples if sample.labels["ModelName"] == model]
            buckets = [sample.value for sample in mine if sample.name.endswith("_bucket")]
            (count,) = (sample.value for sample in mine if sample.name.endswith("_count"))
            assert buckets == sorted(buckets)
            assert buckets[-1] == count > 0


@needs("promtool")
def test_promtool_can_parse_it(server):
    """Its exit code 3 is for TorchServe's own names, which it does not like."""
    checked = subprocess.run(
        ["promtool", "check", "metrics"], input=scrape(server), text=True, capture_output=True, timeout=60
    )
    assert checked.returncode in (0, 3), checked.stderr


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_images_count_alike_over_every_protocol(server, protocol):
    before = values(server, "resnet-50")
    with Client(endpoints=server.endpoints, protocol=protocol) as client:
        for _ in range(3):
            client.classify("resnet-50", IMAGE)
        with pytest.raises(ClientError):
            client.classify("resnet-50", b"no image")
    delta = grown(server, "resnet-50", before, 4)
    assert delta[("handler_failed_items_total", "InvalidImage")] == 1
    assert delta[("handler_batch_size_count",)] == delta[("handler_batch_size_sum",)] == 3
    assert delta[("handler_decode_seconds_count",)] == delta[("handler_encode_seconds_count",)] == 4
    assert delta[("handler_inference_seconds_count",)] == 3
    assert delta[("handler_inference_seconds_sum",)] > 0
    assert ("handler_generated_tokens_total",) not in delta


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_tokens_count_alike_over_every_protocol(server, protocol):
    before = values(server, "t5-small")
    with Client(endpoints=server.endpoints, protocol=protocol) as client:
        client.summarize("t5-small", TEXT, min_new_tokens=7, max_new_tokens=7)
        with pytest.raises(ClientError):
            client.summarize("t5-small", TEXT, num_beams=0)
    delta = grown(server, "t5-small", before, 2)
    assert delta[("handler_generated_tokens_total",)] == 7
    assert delta[("handler_failed_items_total", "InvalidParameter")] == 1
