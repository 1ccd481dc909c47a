"""Run an image with Linux namespaces on a machine without a container engine.

Like an engine, this provides a separate root, process and network namespaces, and the image's user, environment,
folder and command. Requires root, buildah, unshare and ip.
"""

import json
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil

STORAGE = {"STORAGE_DRIVER": "vfs", "BUILDAH_ISOLATION": "chroot"}
"""Settings that require no kernel privileges; the environment takes precedence."""

_SPACES = ("--mount", "--pid", "--net", "--uts", "--ipc")
_ENTER = """
mount --bind /dev {root}/dev && mount -t proc proc {root}/proc && mount -t tmpfs tmpfs {root}/tmp &&
{mounts} hostname localhost && ip link set lo up && exec "$@"
"""


def environment() -> dict[str, str]:
    return STORAGE | os.environ


def buildah(*arguments: str) -> str:
    done = subprocess.run(
        ["buildah", *arguments], env=environment(), capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


class Container:
    """A container. `config` has the settings of its image: User, Env, WorkingDir, Entrypoint, Cmd and Healthcheck."""

    def __init__(self, image: str) -> None:
        self.config: dict[str, Any] = json.loads(buildah("inspect", "--type", "image", image))["Docker"][
            "config"
        ]
        self._name = buildah("from", image)
        self.root = Path(buildah("mount", self._name))
        self._process: subprocess.Popen[str] | None = None

    def start(self, command: Sequence[str] = (), mounts: Mapping[Path, str] | None = None) -> None:
        """Start the entry point with `command` or the image's command. `mounts` maps folders to container paths."""
        command_line = [*(self.config["Entrypoint"] or []), *(command or self.config["Cmd"])]
        bound = "".join(
            f"mount --bind {here} {self.root}{there} && " for here, there in (mounts or {}).items()
        )
        script = _ENTER.format(root=self.root, mounts=bound)
        self._process = subprocess.Popen(
            ["unshare", *_SPACES, "--fork", "sh", "-ec", script, "sh", *self._inside(command_line)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        program = Path(command_line[0]).name
        deadline = time.monotonic() + 10
        while self.alive() and not any(child.name() == program for child in self._children()):
            assert time.monotonic() < deadline, f"{program} does not start"
            time.sleep(0.01)
        assert self.alive(), self._process.communicate()[0]

    @property
    def init(self) -> psutil.Process:
        """Process 1 of the container."""
        (init,) = self._children()
        return init

    def _children(self) -> list[psutil.Process]:
        assert self._process is not None
        return psutil.Process(self._process.pid).children()

    def run(self, *command: str) -> "subprocess.CompletedProcess[str]":
        """Run a command in the container as the same user, like `docker exec`."""
        return self._enter(_SPACES, self._inside(command))

    def spawn(self, *command: str) -> "subprocess.Popen[bytes]":
        """Start a command in the container without waiting for its end."""
        return subprocess.Popen(self._entry(_SPACES, self._inside(command)))

    def beside(self, *command: str) -> "subprocess.CompletedProcess[str]":
        """Run a command of this machine in the network of the container."""
        return self._enter(["--net"], command)

    def stop(self) -> tuple[int, float, str]:
        """Send SIGTERM to process 1; return exit code, seconds until the end, and output."""
        assert self._process is not None
        start = time.monotonic()
        self.init.send_signal(signal.SIGTERM)
        printed, _ = self._process.communicate(timeout=30)
        return self._process.returncode, time.monotonic() - start, printed

    def alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def remove(self) -> None:
        if self._process is not None and self.alive():
            self.init.kill()  # this ends every process of its namespace
            self._process.communicate()
        buildah("umount", self._name)
        buildah("rm", self._name)

    def _enter(self, spaces: Sequence[str], command: Sequence[str]) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(self._entry(spaces, command), capture_output=True, text=True, timeout=120)

    def _entry(self, spaces: Sequence[str], command: Sequence[str]) -> list[str]:
        return ["nsenter", "--target", str(self.init.pid), *spaces, *command]

    def _inside(self, command: Sequence[str]) -> list[str]:
        user = self.config["User"]
        clean = ["env", "-i", "-C", self.config["WorkingDir"], f"HOME=/home/{user}", *self.config["Env"]]
        return ["chroot", f"--userspec={user}", str(self.root), *clean, *command]
