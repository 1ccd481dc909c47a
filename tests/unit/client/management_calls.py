"""Parameters and helpers of the tests of management operations."""

import pytest

both = pytest.mark.parametrize("protocol", ["rest", "grpc"])


def changes(fake):
    """Return the received calls that change something."""
    names = ("RegisterModel", "ScaleWorker", "UnregisterModel")
    return [
        call
        for call in fake.received
        if call in names or (call[0] in ("PUT", "POST", "DELETE") and not call[1].startswith("/workers/"))
    ]


def state_of(fake, **computing):
    """Return the supervisor's state; `computing` has seconds or None by "w" and the worker's id."""

    def state():
        models = []
        for name, versions in fake.versions.items():
            for version, value in versions.items():
                workers = [
                    {"id": str(9000 + index), "pid": pid, "reports": True, "answers": 5, "computing_s": None}
                    for index, pid in enumerate(value.pids)
                ]
                for worker in workers:
                    worker["computing_s"] = computing.get(f"w{worker['id']}")
                is_idle = not any(worker["computing_s"] for worker in workers)
                models.append(
                    {"name": name, "version": version, "idle": is_idle, "in_flight": 0, "workers": workers}
                )
        return {"models": models}

    return state
