"""What the server page shows: everything from outside escaped, every state in words."""

from torchserve_models.client import Label, Model, Worker
from torchserve_models.demo import markup
from torchserve_models.demo.backend import Overview, Shown
from torchserve_models.demo.catalog import Entry
from torchserve_models.demo.traffic import Traffic

WORKERS = (Worker("9000", "READY", 11, False, 0, ""), Worker("9001", "UNLOADING", 12, True, 0, ""))


def shown(name: str, workers: tuple[Worker, ...], default: bool = True) -> Shown:
    model = Model(name, "1.0", "", len(workers), 2, 8, 1, 60, 60, None, True, workers, 99, 3)
    return Shown(Entry(name, "1.0", {"task": "summarization", "engine": "native"}), model, default)


def test_models_and_their_workers():
    traffic = Traffic(1234, 5, 6.7, 2.5, 31.4, 89.0)
    seen = Overview([shown("bart", WORKERS), shown("t5", (), default=False)], lambda name: traffic, "")
    page = markup.overview(seen)
    for words in ("1 of 2 workers ready", "no workers", "1,234", "6.7", "2.5", "31", "89", "9001", "GPU"):
        assert words in page
    assert "version 1.0, summarization, native" in page
    assert "version 1.0 (not the default)" in page
    assert page.count("<section") == page.count("</section>") == 2


def test_labels_are_bars_in_their_order_two_of_one_name_as_well():
    page = markup.bars([Label("crane", 0.75), Label("crane", 0.2), Label("<b>", 1.5e-9)])
    assert page.index("75.0%") < page.index("20.0%") < page.index("&lt;b&gt;")
    assert page.count("crane") == 2
    assert "width: 75.0%" in page


def test_without_metrics_the_models_are_shown_and_the_reason():
    page = markup.overview(Overview([shown("bart", WORKERS)], None, "no <metrics>"))
    assert "no &lt;metrics&gt;" in page
    assert "requests/s" not in page
    assert "1 of 2 workers ready" in page


def test_what_comes_from_outside_is_escaped():
    bad = "<img src=x onerror=alert(1)>\"'"
    pages = [markup.alert(bad), markup.note(bad), markup.overview(Overview([shown(bad, WORKERS)], None, ""))]
    for page in pages:
        assert "<img" not in page
        assert f'"{bad}' not in page


def test_a_server_without_models_says_so():
    assert "no models" in markup.overview(Overview([], None, ""))


def test_the_time_of_an_answer():
    assert "Answered in 0.12 s" in markup.took(0.1234)
