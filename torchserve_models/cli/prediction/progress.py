"""Progress bar of `predict` on stderr."""

import sys
from contextlib import ExitStack
from types import TracebackType
from typing import Self


class ProgressBar:
    """Progress bar that shows finished and failed inputs. It is hidden if stderr is not a terminal."""

    def __init__(self, total: int | None, is_shown: bool) -> None:
        """Create a bar; the context manager shows it.

        Args:
            total: Number of inputs; None if it is not known.
            is_shown: Whether to show the bar on a terminal.
        """
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
            # On a terminal, rich prints lines of stdout above the bar; a file or a pipe gets them unchanged.
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
        """Count one finished input and update the number of failed inputs."""
        if self._is_shown:
            self._progress.update(self._task, advance=1, failed=f"{failed} failed" if failed else "")
