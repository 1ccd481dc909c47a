"""Tables of benchmarks with images and texts."""

import json

import pytest

from benchmarks import runs
from benchmarks.report import tables
from benchmarks.report.results import Results, Row
from torchserve_models.loadgen import LoadStatistics


def make_summary(rate, p50=10.0, p99=20.0, errors=None, tokens=0.0):
    return LoadStatistics(rate, p50, p50, p99, errors or {}, 5.0, 100, 0.1, tokens, p50 / 32)


def make_row(name, rates, p50=10.0, **facts):
    title, _, workload = name.partition(" ")
    is_text, is_peer = bool(workload), not name.startswith(("product", "ceiling"))
    closed = {
        connections: make_summary(rate / 32, p50, 2 * p50, tokens=rate)
        if is_text
        else make_summary(rate, p50)
        for connections, rate in rates.items()
    }
    row = Row(name, title.title(), is_peer, workload, closed=closed, facts=facts, memory={"pss": 1234.5})
    row.spread = dict.fromkeys(closed, 0.0)
    return row


@pytest.fixture
def results():
    product = make_row("product-rest", {1: 90, 32: 100}, 12.0)
    overload = make_summary(95, errors={"HTTP 503": 50})
    product.open = [(70.0, 0.7, make_summary(70, 12.0, 30.0)), (150.0, 1.5, overload)]
    problem = "pip install failed: no such | package in /home/me/x.txt\nand more"
    broken = Row("mlserver", "MLServer", True, problem=problem)
    ceiling = make_row("ceiling", {1: 80, 32: 110}, engine="openvino", precision="bf16")
    rows = [ceiling, product, make_row("flask", {1: 9, 32: 10}, 40.0), broken]
    return Results({row.name: row for row in rows}, (1, 32))


def test_image_table_has_a_line_per_system_and_factors_of_peers(results):
    lines = tables.image_table(results).splitlines()
    assert len({line.count("|") for line in lines}) == 1
    assert "| Flask | 9.0 | 10.0 | 40.0 | 40.0 | 20.0 | 0 | 1,234 | 10.0× |" in lines
    assert lines[2] == "| Ceiling (openvino, bf16) | 80.0 | 110.0 | 10.0 | 10.0 | 20.0 |  | 1,234 |  |"
    assert "skipped: pip install failed: no such / package in x.txt |" in lines[-1]


def test_missing_measurement_is_an_empty_cell(results):
    results.rows["flask"].closed = {1: make_summary(9.0, p50=float("nan"))}
    assert "| Flask | 9.0 |  |  |  |  | 0 | 1,234 |  |" in tables.image_table(results)


def test_open_loop_table_has_errors_by_kind(results):
    text = tables.open_loop_table(results)
    assert "| Product-Rest | 70 | 70% | 70 | 12.0 | 12.0 | 30.0 | 100 | 0 |" in text
    assert "| 50 × HTTP 503 |" in text


def test_agreement_table_has_shares(results):
    assert tables.agreement_table(results) == ""
    results.rows["ceiling"].facts["agreement"] = {
        "images": 1000,
        "same": 991,
        "correct": 980,
        "reference_correct": 970,
    }
    [_, _, line] = tables.agreement_table(results).splitlines()
    assert line == "| Ceiling (openvino, bf16) | 99.1% of 1000 | 98.0% | 97.0% |"


@pytest.fixture
def text_results():
    rows = [
        make_row("openvino a", {1: 90, 8: 800}, 1000.0),
        make_row("product a", {1: 100, 8: 810, 32: 900}, 300.0, engine="torch"),
        make_row("product b", {1: 90, 8: 500}, 1000.0),
        make_row("fastapi a", {1: 100, 8: 100}, 1000.0),
        make_row("fastapi b", {1: 100, 8: 100}, 1000.0),
        Row("mlserver a", "MLServer", True, "a", problem="pip install failed: no such package"),
    ]
    rows[2].facts["drafts"] = {"8": {"tokens_per_step": 2.614, "accepted": 0.65}}
    rows[4].skipped[32] = "an answer per client takes 99 s"
    return Results({row.name: row for row in rows}, (1, 8, 32))


def test_short_table_has_a_line_per_system_and_factors(text_results):
    lines = tables.short_table(text_results, ("a", "b")).splitlines()
    assert len({line.count("|") for line in lines}) == 1
    assert lines[0].startswith("| new tokens/s of (workload) at | (a) 1 | (a) 8 | (a) 32 | (b) 1 | (b) 8 |")
    assert "| Product (torch) | 100 | 810 | 900 | 90 | 500 | 0.30 | 0 | 1,234 |  |  |" in lines
    assert "| Fastapi | 100 | 100 |  | 100 | 100 | 1.00 | 0 | 1,234 | 8.1× | 5.0× |" in lines
    assert lines[-1].startswith("| MLServer | skipped: pip install failed: no such package |")


def test_workload_table_has_reasons_of_skipped_loads(text_results):
    lines = tables.workload_table(text_results, "b").splitlines()
    assert len({line.count("|") for line in lines}) == 1
    assert "| Product | 8 | 15.62 | 500 | 31.2 | 1.00 | 2.00 | 100 | 0% | 0 | 2.61 | 65% |" in lines
    assert any(
        line.startswith("| Fastapi | 32 | skipped: an answer per client takes 99 s |") for line in lines
    )


def test_report_has_systems_by_workload(text_results, tmp_path):
    runs.write_text_report(tmp_path, {"t5-small": text_results}, ("a", "b"), "On a machine.", {"date": "now"})
    data = json.loads((tmp_path / "results.json").read_text(), parse_constant=pytest.fail)
    systems = data["models"]["t5-small"]["systems"]
    assert [(system["system"], system["workload"]) for system in systems][:2] == [
        ("openvino", "a"),
        ("product", "a"),
    ]
    assert systems[1]["closed"]["8"]["tokens_per_second"] == 810
    assert "**T5-small**" in (tmp_path / "table.md").read_text()
    assert "four beams" not in (tmp_path / "report.md").read_text()
