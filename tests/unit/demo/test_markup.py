"""The HTML of the pages: external text is escaped, and every state is shown."""

from torchserve_models.client import Label, Model, Worker
from torchserve_models.demo import markup
from torchserve_models.demo.backend import ModelVersion, Overview
from torchserve_models.demo.catalog import CatalogEntry
from torchserve_models.demo.traffic import TrafficStats

WORKERS = (Worker("9000", "READY", 11, False, 0, ""), Worker("9001", "UNLOADING", 12, True, 0, ""))


def model_version(name: str, workers: tuple[Worker, ...], default: bool = True) -> ModelVersion:
    model = Model(name, "1.0", "", len(workers), 2, 8, 1, 60, 60, None, True, workers, 99, 3)
    return ModelVersion(
        CatalogEntry(name, "1.0", {"task": "summarization", "engine": "native"}), model, default
    )


def test_models_and_workers_are_shown():
    traffic = TrafficStats(1234, 5, 6.7, 2.5, 31.4, 89.0)
    server = Overview(
        [model_version("bart", WORKERS), model_version("t5", (), default=False)], lambda name: traffic, ""
    )
    page = markup.overview(server)
    for words in ("1 of 2 workers ready", "no workers", "1,234", "6.7", "2.5", "31", "89", "9001", "GPU"):
        assert words in page
    assert "version 1.0, summarization, native" in page
    assert "version 1.0 (not the default)" in page
    assert page.count("<section") == page.count("</section>") == 2


def test_labels_are_bars_in_their_order():
    page = markup.bars([Label("crane", 0.75), Label("crane", 0.2), Label("<b>", 1.5e-9)])
    assert page.index("75.0%") < page.index("20.0%") < page.index("&lt;b&gt;")
    assert page.count("crane") == 2
    assert "width: 75.0%" in page


def test_missing_metrics_show_the_models_and_the_reason():
    page = markup.overview(Overview([model_version("bart", WORKERS)], None, "no <metrics>"))
    assert "no &lt;metrics&gt;" in page
    assert "requests/s" not in page
    assert "1 of 2 workers ready" in page


def test_external_text_is_escaped():
    bad = "<img src=x onerror=alert(1)>\"'"
    pages = [
        markup.alert(bad),
        markup.note(bad),
        markup.overview(Overview([model_version(bad, WORKERS)], None, "")),
    ]
    for page in pages:
        assert "<img" not in page
        assert f'"{bad}' not in page


def test_server_without_models_shows_a_hint():
    assert "no models" in markup.overview(Overview([], None, ""))


def test_response_time_is_shown():
    assert "Answered in 0.12 s" in markup.response_time(0.1234)
