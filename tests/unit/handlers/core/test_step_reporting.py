"""Reports of an engine's loops to the pipeline."""

from handlers.core.step_reporting import report_draft_tokens, report_step, step_callback


def test_reports_reach_the_innermost_callbacks_only_within_their_block() -> None:
    reports: list[object] = []
    report_step()
    with step_callback(lambda: reports.append("outer")):
        with step_callback(lambda: reports.append("inner"), lambda *counts: reports.append(counts)):
            report_step()
            report_draft_tokens(5, 3)
        report_step()
        report_draft_tokens(1, 1)
    report_draft_tokens(1, 1)
    assert reports == ["inner", (5, 3), "outer"]
