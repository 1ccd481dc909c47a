"""One Java front-end process: start, exit status and termination."""

import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from torchserve_models.serving.run_config.run_dir import RunDir
from torchserve_models.serving.run_config.state import ProcessIdentity
from torchserve_models.serving.supervisor import frontend_process
from torchserve_models.serving.system import process_state

_OUT_OF_MEMORY_CODE = 3  # of -XX:+ExitOnOutOfMemoryError
STOPPED_S = 3.0
"""Time in state T (SIGSTOP) after which the process is restarted."""


class ProcessLauncher:
    """Launcher that starts processes from a thread that runs until `close`.

    The kernel sends the front end SIGTERM when the thread that started it ends (PR_SET_PDEATHSIG), even if the
    supervisor's process continues.
    """

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="launcher")

    def launch(self, start: Callable[[], "subprocess.Popen[bytes]"]) -> "subprocess.Popen[bytes]":
        return self._thread.submit(start).result()

    def close(self) -> None:
        self._thread.shutdown(wait=False)


class Frontend:
    """A front-end process. `temporary` is the folder of its sockets and unpacked models."""

    def __init__(self, java: "subprocess.Popen[bytes]", temporary: Path) -> None:
        self.identity = ProcessIdentity.of(java.pid)
        self.temporary = temporary
        self._java = java
        self._stopped_since: float | None = None

    @classmethod
    def start(
        cls, launcher: ProcessLauncher, run: RunDir, settings: Mapping[str, str], temporary: Path
    ) -> "Frontend":
        """Start the front end. Raises FrontendFailed."""
        return cls(launcher.launch(lambda: frontend_process.start(run, settings, temporary)), temporary)

    @property
    def pid(self) -> int:
        return self.identity.pid

    @property
    def is_running(self) -> bool:
        return self._java.poll() is None

    @property
    def ending(self) -> str:
        """Exit code or signal of the ended process, as text."""
        code = self._java.returncode
        if code >= 0:
            return f"exit code {code}"
        names = {number.value: number.name for number in signal.Signals}
        return f"killed by {names.get(-code, f'signal {-code}')}"  # real-time signals have no name

    @property
    def is_out_of_memory(self) -> bool:
        """Whether the process ended because its heap was full."""
        return self._java.returncode == _OUT_OF_MEMORY_CODE

    def is_stopped(self) -> bool:
        """Return whether the process has been stopped (SIGSTOP) for STOPPED_S. Call this several times a second."""
        if not process_state.is_stopped(self.pid):
            self._stopped_since = None
            return False
        if self._stopped_since is None:
            self._stopped_since = time.monotonic()
        return time.monotonic() - self._stopped_since > STOPPED_S

    def end(self, timeout: float) -> None:
        """Terminate the front end and its children: SIGTERM, then SIGKILL after `timeout` seconds (0: now)."""
        frontend_process.end(self.identity, self.temporary, timeout)
        self._java.wait()
        frontend_process.remove(self.temporary)
