"""Tables, the section of docs/benchmarks.md, and the promises, from numbers that are known."""

import json

import pytest

from benchmarks import report
from benchmarks.agreement import Agreement
from benchmarks.bars import bars
from benchmarks.errors import BenchError
from benchmarks.results import Results, Row
from benchmarks.systems.catalog import PEERS
from tests.conftest import ROOT
from torchserve_models.loadgen import Summary


def summary(rate, p50=10.0, p99=20.0, errors=None):
    return Summary(rate, p50, p50, p99, errors or {}, 5.0, 100, 0.1)


def row(name, rates, peer=False, p50=10.0):
    closed = dict(zip((1, 32), (summary(rate, p50) for rate in rates), strict=True))
    return Row(name, name.title(), peer, closed=closed, memory={"pss": 1234.5, "uss": 1.0})


@pytest.fixture
def results():
    product = row("product-rest", (90, 100), p50=12.0)
    product.open = [(70.0, 0.7, summary(70, 12.0, 30.0)), (150.0, 1.5, summary(95, errors={"HTTP 503": 50}))]
    broken = Row(
        "mlserver", "MLServer", True, problem="not installed: no such | package in /home/me/x.txt\nand more"
    )
    rows = [row("ceiling", (80, 110)), product, row("flask", (9, 10), True, 40.0), broken]
    return Results({each.name: each for each in rows}, (1, 32))


def judged(results, agreements=(), gpu=False):
    return {bar.what: bar for bar in bars(results, agreements, gpu)}


def test_the_table_has_a_line_for_each_system_and_what_we_are_against_peers(results):
    lines = report.table(results).splitlines()
    assert len({line.count("|") for line in lines}) == 1
    assert "| Flask | 9.0 | 10.0 | 40.0 | 40.0 | 20.0 | 0 | 1,234 | 10.0× |" in lines
    assert "left out: not installed: no such / package in x.txt |" in lines[-1]
    assert "×" not in next(line for line in lines if line.startswith("| Ceiling"))


def test_the_open_table_tells_errors_by_kind(results):
    text = report.open_table(results)
    assert "| Product-Rest | 70 | 70% | 70 | 12.0 | 12.0 | 30.0 | 100 | 0 |" in text
    assert "50 × HTTP 503" in text


def test_promises_that_hold(results):
    found = judged(results, [Agreement("product-rest", "bf16", 1000, 991, 980)])
    ceiling = found["requests/s at 32 over the in-process ceiling, as packed"]
    assert (ceiling.measured, ceiling.met) == ("0.91", True)
    peers = found["requests/s at 32 over each peer, as packed"]
    assert peers.measured.startswith("10.0 times flask, the fastest of 1; without fastapi, mlserver")
    assert peers.met is None
    assert found["p50 at 1 against in process, as packed"].met
    assert found["p99 at 70 % of capacity, as packed"].met
    assert found["good answers at 150 % of capacity, as packed"].met
    assert found["first label as in fp32 eager, as packed"].met


def test_a_promise_over_each_peer_needs_every_peer(results):
    for name in PEERS:
        results.rows[name] = row(name, (9, 10), True, 40.0)
    names = ("requests/s at 32 over each peer, as packed", "p50 at 1 against every peer, as packed")
    assert all(judged(results)[name].met for name in names)
    results.rows["mlserver"].closed = {1: summary(1.0, errors={"timeout": 1}), 32: summary(0.0)}
    assert all(judged(results)[name].met is None for name in names)
    assert all(judged(results)[name].measured.endswith("; without mlserver") for name in names)
    results.rows["flask"].closed[32] = summary(50)
    assert judged(results)[names[0]].met is False


def test_no_answers_at_all_are_no_promise_kept(results):
    nothing = float("nan")
    results.rows["product-rest"].closed = {1: summary(0, nothing), 32: summary(0, nothing)}
    found = judged(results)
    assert found["p50 at 1 against in process, as packed"].met is False
    assert found["p50 at 1 against every peer, as packed"].met is False


def test_our_own_rows_name_their_engine(results):
    results.rows["ceiling"].facts = {"engine": "openvino", "precision": "bf16"}
    assert "| Ceiling (openvino, bf16) |" in report.table(results)


def test_promises_that_do_not_hold(results):
    results.rows["product-rest"].closed = {1: summary(20, p50=50.0), 32: summary(50)}
    results.rows["product-rest"].open = [
        (70.0, 0.7, summary(70, 10.0, 41.0)),
        (150.0, 1.5, summary(10)),
    ]
    found = judged(results, [Agreement("product-rest", "bf16", 1000, 989, 980)])
    measured = [bar for what, bar in found.items() if what.endswith("as packed")]
    assert len(measured) == 7
    assert not any(bar.met for bar in measured)


def test_an_error_at_seventy_percent_breaks_the_promise(results):
    results.rows["product-rest"].open = [(70.0, 0.7, summary(70, errors={"timeout": 1}))]
    assert judged(results)["p99 at 70 % of capacity, as packed"].met is False


def test_what_was_not_measured_is_neither_kept_nor_broken(results):
    found = judged(Results({}, (1, 32)))
    assert all(bar.met is None for bar in found.values())
    assert list(found) == list(judged(results))  # always the same lines
    assert "not measured" in report.bars_table(list(found.values()))


def test_everything_is_written_and_the_json_can_be_read(results, tmp_path):
    results.rows["flask"].closed[1] = summary(0.0, p50=float("nan"))
    report.write(tmp_path / "out", results, "On a machine.", {"date": "now"}, {"A": "text", "B": ""})
    found = json.loads((tmp_path / "out" / "results.json").read_text(), parse_constant=pytest.fail)
    assert [system["name"] for system in found["systems"]] == [*results.rows]
    assert found["systems"][2]["closed"]["1"]["p50"] is None
    assert found["date"] == "now"
    text = (tmp_path / "out" / "report.md").read_text()
    assert "## A" in text
    assert "## B" not in text


def test_the_section_of_the_page_is_replaced_and_nothing_else(tmp_path):
    page = tmp_path / "benchmarks.md"
    page.write_text("before\n\n<!-- bench -->\nold\n<!-- /bench -->\n\nafter é\n", "utf-8")
    report.into_page(page, "new\n")
    assert page.read_text("utf-8") == "before\n\n<!-- bench -->\nnew\n<!-- /bench -->\n\nafter é\n"
    report.into_page(page, "new\n")
    assert page.read_text("utf-8").count("new") == 1


def test_texts_have_a_section_of_their_own(tmp_path):
    page = tmp_path / "benchmarks.md"
    page.write_text("<!-- bench -->\na\n<!-- /bench -->\n<!-- bench-texts -->\nb\n<!-- /bench-texts -->\n")
    report.into_page(page, "new", report.TEXTS_SECTION)
    assert page.read_text().splitlines()[1::2] == ["a", "<!-- bench-texts -->", "<!-- /bench-texts -->"]


@pytest.mark.parametrize("section", [report.SECTION, report.TEXTS_SECTION])
def test_documentation_has_the_markers_of_each_section_once(section):
    before, after = report.around_markers(ROOT / "docs" / "benchmarks.md", section)
    assert before.startswith("# Benchmarks")
    assert after.strip()


@pytest.mark.parametrize(
    "text",
    [
        "none",
        "<!-- bench -->",
        "<!-- /bench --> <!-- bench -->",
        "<!-- bench --><!-- bench --><!-- /bench -->",
    ],
)
def test_without_its_markers_the_page_stays_as_it_is(tmp_path, text):
    page = tmp_path / "benchmarks.md"
    page.write_text(text)
    with pytest.raises(BenchError, match="markers"):
        report.into_page(page, "new")
    assert page.read_text() == text
