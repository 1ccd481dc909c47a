"""The current registration of a model."""

import asyncio
import json

import pytest

from torchserve_models.gateway.response_cache import registrations
from torchserve_models.gateway.response_cache.registrations import Registration, Registrations

TIMEOUT_S = 10.0
OLDEST = "2026-01-01T00:00:00.000Z"


class Management:
    """A management API whose answers wait until `release` is set. `paths` lists the requested paths."""

    def __init__(self) -> None:
        self.version = "1.0"
        self.workers = [
            {"id": "9001", "startTime": "2026-01-02T00:00:00.000Z"},
            {"id": "9000", "startTime": OLDEST},
        ]
        self.status = 200
        self.paths: list[str] = []
        self.release = asyncio.Event()
        self.release.set()

    async def get(self, path: str) -> tuple[int, bytes]:
        self.paths.append(path)
        body = json.dumps([{"modelVersion": self.version, "workers": self.workers}]).encode()
        await self.release.wait()
        return self.status, body


@pytest.fixture
async def management() -> Management:
    return Management()


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def current(management, clock) -> Registrations:
    return Registrations(management.get, TIMEOUT_S, clock)


async def until(condition) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0)


async def test_version_and_oldest_worker_identify_a_registration(current, management):
    expected = Registration("a model", "1.0", "9000", OLDEST)
    assert await current.current("a model", "") == expected
    management.workers = management.workers[1:]
    assert await current.current("a model", "1.0") == expected
    assert management.paths == ["/models/a%20model", "/models/a%20model/1.0"]


async def test_no_registration_without_worker_or_version(current, management):
    management.workers = []
    assert await current.current("a", "") is None
    management.status = 404
    assert await current.current("a", "") is None


@pytest.mark.parametrize("answer", [b"", b"[]", b"{}", b"[1]", b'[{"workers": [{}]}]', b'"a"'])
async def test_no_registration_in_an_unknown_answer(answer):
    async def get(_):
        return 200, answer

    assert await Registrations(get, TIMEOUT_S).current("a", "") is None


async def test_slow_management_api_is_not_waited_for_and_not_asked_for_some_seconds(management, clock):
    current = Registrations(management.get, 0.01, clock)
    management.release.clear()
    first = asyncio.ensure_future(current.current("a", ""))
    await until(lambda: management.paths)
    second = asyncio.ensure_future(current.current("a", ""))
    assert [await first, await second] == [None, None]
    assert current.is_paused
    management.release.set()
    assert await current.current("b", "") is None
    assert management.paths == ["/models/a"]
    clock.now += registrations.PAUSE_S
    assert not current.is_paused
    await current.current("b", "")
    assert management.paths == ["/models/a", "/models/b"]


async def test_answer_is_never_older_than_the_question(current, management):
    management.release.clear()
    first = asyncio.ensure_future(current.current("a", ""))
    await until(lambda: management.paths)
    management.version = "2.0"
    later = [asyncio.ensure_future(current.current("a", "")) for _ in range(10)]
    await asyncio.sleep(0)
    management.release.set()
    assert (await first).version == "1.0"
    assert {(await result).version for result in later} == {"2.0"}
    assert len(management.paths) == 2


async def test_canceled_caller_does_not_cancel_the_others(current, management):
    management.release.clear()
    first, second = (asyncio.ensure_future(current.current("a", "")) for _ in range(2))
    await until(lambda: management.paths)
    first.cancel()
    await asyncio.sleep(0)
    management.release.set()
    assert (await second).version == "1.0"
    assert len(management.paths) == 1


async def test_check_is_forgotten_if_its_only_caller_is_canceled(current, management):
    management.release.clear()
    callers = [asyncio.ensure_future(current.current(f"a{number}", "")) for number in range(5)]
    await until(lambda: len(management.paths) == 5)
    for caller in callers:
        caller.cancel()
    await asyncio.wait(callers)
    assert len(current) == 5
    management.release.set()
    await until(lambda: len(current) == 0)
