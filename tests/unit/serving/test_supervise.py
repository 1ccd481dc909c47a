"""How long the end of a run may take."""

import pytest

from serving import supervise
from serving.plan import plan
from serving.supervise import END, GRACE, SHUTDOWN, Supervisor


def test_every_part_of_the_end_fits_one_deadline(tmp_path, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(supervise.time, "monotonic", lambda: now[0])
    supervisor = Supervisor(plan(["m"], tmp_path, tmp_path), print)
    supervisor.ask_to_stop()
    assert supervisor._at_most(GRACE, SHUTDOWN) == GRACE
    now[0] += 3.0  # a look that was under way
    supervisor.ask_to_stop()  # a second wish moves nothing
    assert supervisor._at_most(GRACE, SHUTDOWN) == pytest.approx(END - 3.0 - SHUTDOWN)
    now[0] += END
    assert supervisor._at_most(SHUTDOWN) == 0.0
