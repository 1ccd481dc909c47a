"""Tables and promises of a run with texts, from numbers that are known."""

import json

import pytest

from benchmarks.results import Results, Row
from benchmarks.texts import command, report
from benchmarks.texts.bars import bars
from torchserve_models.loadgen import Summary


def summary(tokens, p50=1000.0, errors=None):
    return Summary(tokens / 32, p50, p50, 2 * p50, errors or {}, 5.0, 10, 0.1, tokens, p50 / 32)


def row(name, rates, p50=1000.0, **facts):
    closed = {at: summary(rate, p50) for at, rate in rates.items()}
    peer = not name.startswith("product")
    return Row(name, name.split()[0].title(), peer, closed=closed, facts=facts, memory={"pss": 1234.5})


@pytest.fixture
def found():
    rows = [
        row("in-process-bf16 a", {1: 80, 8: 300}),
        row("openvino a", {1: 90, 8: 800}),
        row("product a", {1: 100, 8: 810, 32: 900}, p50=300.0, engine="torch", peak_mb={"32": 1500.0}),
        row("product b", {1: 90, 8: 500}),
        row("fastapi a", {1: 100, 8: 100}),
        row("fastapi b", {1: 100, 8: 100}, left_out={"32": "an answer for each would take 99 s"}),
        Row("mlserver a", "MLServer", True, problem="not installed: no such package"),
    ]
    return {"t5-small": Results({each.name: each for each in rows}, (1, 8, 32))}


def judged(found):
    return {bar.what.removeprefix("T5-small, "): bar for bar in bars(found)}


def test_promises_that_hold_and_that_do_not(found):
    lines = judged(found)
    tutorial = "new tokens/s at 8 over FastAPI with generate(), fp32"
    assert (lines[f"{tutorial}, (a)"].measured, lines[f"{tutorial}, (a)"].met) == ("8.10 times", True)
    assert lines[f"{tutorial}, (b)"].met is False
    assert lines[f"{tutorial}, (c)"].met is None
    assert lines["new tokens/s at 8 over generate() in process, bf16, (a)"].met
    ceiling = lines["new tokens/s at 8 over the best library in process, (a)"]
    assert ceiling.measured == "1.01 times, openvino; without ctranslate2, ctranslate2-int8"
    assert ceiling.met
    assert lines["p50 at 1 over FastAPI with generate(), fp32, (a)"].measured == "0.30 (300 and 1,000 ms)"


def test_lines_are_always_the_same_and_nothing_measured_is_neither(found):
    nothing = bars({})
    assert [bar.what for bar in nothing] == [bar.what for bar in bars(found)]
    assert len(nothing) == 13
    assert all(bar.met is None for bar in nothing)


@pytest.mark.parametrize(("name", "met"), [("product a", False), ("fastapi a", None)])
def test_errors_of_ours_break_a_promise_and_others_leave_it_open(found, name, met):
    found["t5-small"].rows[name].closed[8] = summary(810, errors={"wrong answer": 1})
    assert judged(found)["new tokens/s at 8 over FastAPI with generate(), fp32, (a)"].met is met


@pytest.mark.parametrize(("most", "met"), [(3999.0, True), (4001.0, False)])
def test_memory_is_judged_under_the_worst_workload(most, met):
    rows = [row("product a", {32: 1}, peak_mb={"32": 1500.0}), row("product c", {}, peak_mb={"8": most})]
    [bar] = bars({"bart-large": Results({each.name: each for each in rows}, (1, 8, 32))})[-1:]
    assert bar.met is met
    assert bar.measured.endswith("GB, (c) at 8")
    assert bars({"bart-large": Results({"product c": rows[1]}, (1, 8))})[-1].met is None


def test_the_short_table_has_a_line_for_each_system_and_our_factors(found):
    lines = report.short(found["t5-small"], ("a", "b")).splitlines()
    assert len({line.count("|") for line in lines}) == 1
    assert lines[0].startswith("| new tokens/s of (workload) at | (a) 1 | (a) 8 | (a) 32 | (b) 8 |")
    assert "| Product (torch) | 100 | 810 | 900 | 500 | 0.30 | 0 | 1,234 |  |  |" in lines
    assert "| Fastapi | 100 | 100 |  | 100 | 1.00 | 0 | 1,234 | 8.1× | 5.0× |" in lines
    assert lines[-1].startswith("| MLServer | left out: not installed: no such package |")


def test_the_whole_table_says_what_was_left_out(found):
    lines = report.whole(found["t5-small"], "b").splitlines()
    assert len({line.count("|") for line in lines}) == 1
    assert "| Product | 8 | 15.62 | 500 | 31.2 | 1.00 | 2.00 | 10 | 0% | 0 |" in lines
    assert any(
        line.startswith("| Fastapi | 32 | left out: an answer for each would take 99 s |") for line in lines
    )


def test_everything_is_written(found, tmp_path):
    blocks = command.write(tmp_path, found, ("a", "b"), "On a machine.", {"date": "now"})
    assert "What is promised" in blocks
    everything = json.loads((tmp_path / "results.json").read_text(), parse_constant=pytest.fail)
    systems = everything["models"]["t5-small"]["systems"]
    assert [(each["system"], each["workload"]) for each in systems][:2] == [
        ("in-process-bf16", "a"),
        ("openvino", "a"),
    ]
    assert systems[2]["closed"]["8"]["tokens_per_second"] == 810
    assert "**T5-small**" in (tmp_path / "table.md").read_text()
    assert "four beams" not in (tmp_path / "report.md").read_text()
