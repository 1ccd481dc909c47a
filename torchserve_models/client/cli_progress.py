"""The progress of `predict` on stderr, where that is a terminal."""

import sys
from contextlib import ExitStack
from types import TracebackType
from typing import Self


class ProgressBar:
    """Counts finished inputs. Without a terminal it shows nothing. Use it in a `with`."""

    def __init__(self, total: int | None, is_shown: bool) -> None:
        """`total` is None where the number of inputs is not known."""
        self._total = total
        self._is_shown = is_shown and sys.stderr.isatty()
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        if self._is_shown:
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

            console = Console(stderr=True, highlight=False, soft_wrap=True)
            columns = (
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[failed]}"),
                TimeRemainingColumn(),
            )
            # Lines for a terminal go above the bar; into a file or a pipe they go as they are.
            progress = Progress(
                *columns, console=console, redirect_stdout=sys.stdout.isatty(), transient=True
            )
            self._progress = self._stack.enter_context(progress)
            self._task = self._progress.add_task("", total=self._total, failed="")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def advance(self, failed: int) -> None:
        """One more is finished; `failed` of all have failed."""
        if self._is_shown:
            self._progress.update(self._task, advance=1, failed=f"{failed} failed" if failed else "")
