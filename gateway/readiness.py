"""The truth about readiness: every worker READY, and a question answered a moment ago. TorchServe's is a constant."""

import asyncio
import time
from collections.abc import Sequence

from client import AsyncClient, InvalidRequest, Model, ModelNotFound, Overloaded, ServeError, Timeout
from gateway.remembered import Remembered
from serving import question

PATIENCE = 5.0  # seconds for a question
WORKERS_REMEMBERED = 1.0
PAUSE = 30.0  # seconds: a model is not silent for longer than this where nobody asks it


class Readiness:
    """What keeps a model, or the server, from being ready; None where it is. Raises ModelNotFound."""

    def __init__(self, client: AsyncClient, question_every: float) -> None:
        self._client = client
        self._versions = Remembered(self._look, WORKERS_REMEMBERED)
        self._names = Remembered(self._list, WORKERS_REMEMBERED)
        self._answers = Remembered(self._ask, question_every)
        self._tasks: Remembered[tuple[str, str], str | None] = Remembered(self._task, 60.0)
        # By version: seconds without an answer, and when it was last asked in vain.
        self._silent: dict[tuple[str, str], tuple[float, float]] = {}

    async def server(self) -> str | None:
        """A server without a model is not ready."""
        try:
            names = await self._names(None)
        except ServeError as error:
            return f"TorchServe does not answer: {error.message}"
        problems = await asyncio.gather(*(self._unless_gone(name) for name in names))
        return next((problem for problem in problems if problem), None if names else "no model is registered")

    async def model(self, name: str, version: str | None = None) -> str | None:
        """One version, or all that should have workers."""
        if version is None:
            return await self._all_versions(name)
        every, _ = await self._versions(name)
        found = [each for each in every if each.version == version]
        if not found:
            raise ModelNotFound(f"Model version: {version} does not exist for model: {name}")
        return _missing(found[0], wanted=1) or await self._answers((name, version))

    async def _unless_gone(self, name: str) -> str | None:
        """A model may go between the list and its question."""
        try:
            return await self._all_versions(name)
        except ModelNotFound:
            return None

    async def _all_versions(self, name: str) -> str | None:
        try:
            every, default = await self._versions(name)
        except ModelNotFound:
            raise
        except ServeError as error:
            return f"TorchServe does not describe {name}: {error.message}"
        for each in every:
            problem = _missing(each, wanted=max(each.min_workers, 1 if each.version == default else 0))
            if problem:
                return problem
        return await self._answers((name, default))

    async def _list(self, _: None) -> Sequence[str]:
        return sorted(entry.name for entry in await self._client.list_models())

    async def _look(self, name: str) -> tuple[Sequence[Model], str]:
        """Every version, and which one answers by default."""
        try:
            every, default = await asyncio.gather(
                self._client.describe_versions(name), self._client.describe(name)
            )
        except InvalidRequest as error:  # a name that none can have
            raise ModelNotFound(f"Model not found: {name[:60]}") from error
        return every, default.version

    async def _ask(self, key: tuple[str, str]) -> str | None:
        """What keeps this version from answering. A full queue does not, for a while: its workers are at work."""
        name, version = key
        try:
            async with asyncio.timeout(PATIENCE):
                task = await self._tasks(key)
                if task == "image-classification":
                    await self._client.classify(name, question.picture(), version=version)
                elif task == "summarization":
                    await self._client.summarize(name, question.TEXT, version=version, **question.SHORT)
        except (Overloaded, Timeout, TimeoutError) as error:
            if await self._is_busy(name, version, self._silence(key)):
                return None
            return f"{name} did not answer a question: {getattr(error, 'message', 'no answer in time')}"
        except ModelNotFound:
            raise
        except ServeError as error:
            return f"{name} did not answer a question: {error.message}"
        self._silent.pop(key, None)
        return None

    def _silence(self, key: tuple[str, str]) -> float:
        now = time.monotonic()
        seconds, before = self._silent.get(key, (0.0, now))
        seconds += min(now - before, PAUSE)
        self._silent[key] = seconds, now
        return seconds

    async def _task(self, key: tuple[str, str]) -> str | None:
        """A worker answers this; that of a model that is not ours answers only this."""
        metadata = (await self._client.describe(*key, customized=True)).metadata
        task = metadata.get("task") if isinstance(metadata, dict) else None
        return task if isinstance(task, str) else None

    async def _is_busy(self, name: str, version: str, silence: float) -> bool:
        """READY workers that take nothing look the same; but nobody at work is silent beyond the response timeout."""
        try:
            described = await self._client.describe(name, version)
        except ServeError:
            return False
        at_work = bool(described.queue_waiting) and _missing(described, wanted=1) is None
        return at_work and silence <= described.response_timeout


def _missing(model: Model, wanted: int) -> str | None:
    """In words, the workers that are not READY."""
    ready, most = sum(worker.ready for worker in model.workers), max(wanted, len(model.workers))
    return None if ready == most else f"{model.name} {model.version}: {ready} of {most} workers are READY"
