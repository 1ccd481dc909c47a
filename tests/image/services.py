"""Run the services of deploy/compose.yaml as podman containers."""

import json
import re
import resource
import subprocess
from collections.abc import Mapping
from typing import Any

import yaml

from tests.conftest import ROOT

FILE = ROOT / "deploy" / "compose.yaml"
_VARIABLE = re.compile(r"\$\{(\w+):-([^}]*)\}")


def podman(*arguments: str, check: bool = True, timeout: float = 180) -> str:
    done = subprocess.run(["podman", *arguments], capture_output=True, text=True, timeout=timeout)
    assert not check or done.returncode == 0, done.stderr
    return done.stdout.strip()


class Stack:
    """The containers of the compose file. `variables` replace compose's environment variables."""

    def __init__(self, project: str, variables: Mapping[str, str]) -> None:
        self._project = project
        text = _VARIABLE.sub(lambda match: variables.get(match[1], match[2]), FILE.read_text())
        self.services: dict[str, Any] = yaml.safe_load(text)["services"]
        podman("network", "create", self._name("front"))

    def start(self, service: str) -> None:
        definition = self.services[service]
        options = [*_options(definition), *self._mounts(definition), *self._network(service, definition)]
        if check := definition.get("healthcheck"):
            kind, *words = check["test"]
            options += ["--health-cmd", words[0] if kind == "CMD-SHELL" else json.dumps(words)]
        name = self._name(service)
        command = definition.get("command", [])
        words = [word.replace("$$", "$") for word in command]
        podman("run", "--detach", "--name", name, *options, definition["image"], *words)

    def is_healthy(self, service: str) -> bool:
        """Run the health check of the service once."""
        done = subprocess.run(
            ["podman", "healthcheck", "run", self._name(service)], capture_output=True, timeout=60
        )
        return done.returncode == 0

    def execute(self, service: str, *command: str) -> str:
        return podman("exec", self._name(service), *command)

    def shell(self, service: str, script: str) -> str:
        return podman("exec", self._name(service), "sh", "-c", script, check=False)

    def restart(self, service: str) -> None:
        podman("restart", "--time", "75", self._name(service))

    def stop(self, service: str) -> int:
        """Stop a service with the image's stop signal and compose's grace period; return its exit code."""
        grace = self.services[service]["stop_grace_period"].removesuffix("s")
        podman("stop", "--time", grace, self._name(service))
        return int(podman("inspect", self._name(service), "--format", "{{.State.ExitCode}}"))

    def address(self, service: str) -> str:
        output = podman(
            "inspect",
            self._name(service),
            "--format",
            "{{range .NetworkSettings.Networks}}{{.IPAddress}} {{end}}",
        )
        (address,) = output.split()
        return address

    def log(self, service: str) -> str:
        done = subprocess.run(
            ["podman", "logs", "--tail", "40", self._name(service)],
            capture_output=True,
            text=True,
            timeout=60,
        )
        return done.stdout + done.stderr

    def remove(self) -> None:
        for service in reversed(list(self.services)):
            podman("rm", "--force", "--time", "1", self._name(service), check=False)
        podman("network", "rm", self._name("front"), check=False)
        for volume in ("bodies", "edge", "models"):
            podman("volume", "rm", self._name(volume), check=False)

    def _name(self, service: str) -> str:
        return f"{self._project}-{service}"

    def _mounts(self, definition: Mapping[str, Any]) -> list[str]:
        return [
            option
            for mount in definition.get("volumes", [])
            for option in ("--volume", mount if mount.startswith("/") else self._name(mount))
        ]

    def _network(self, service: str, definition: Mapping[str, Any]) -> list[str]:
        if mode := definition.get("network_mode"):
            return ["--network", f"container:{self._name(mode.removeprefix('service:'))}"]
        assert definition["networks"] == ["front"]
        return ["--network", self._name("front"), "--network-alias", service]


def _options(definition: Mapping[str, Any]) -> list[str]:
    options = [
        "--restart",
        definition["restart"],
        "--memory",
        definition["deploy"]["resources"]["limits"]["memory"],
    ]
    options += ["--pids-limit", str(definition["pids_limit"])]
    if definition.get("read_only"):
        options += ["--read-only"]
    files = definition.get("ulimits", {}).get("nofile")
    if files is not None:
        files = min(files, resource.getrlimit(resource.RLIMIT_NOFILE)[1])
        processes = resource.getrlimit(resource.RLIMIT_NPROC)[1]
        options += ["--ulimit", f"nofile={files}", "--ulimit", f"nproc={min(processes, 1000)}"]
    for key, option in (
        ("cap_drop", "--cap-drop"),
        ("cap_add", "--cap-add"),
        ("security_opt", "--security-opt"),
        ("tmpfs", "--tmpfs"),
    ):
        options += [word for value in definition.get(key, []) for word in (option, value)]
    for name, value in definition.get("environment", {}).items():
        options += ["--env", f"{name}={value}"]
    for address in definition.get("ports", []):
        options += ["--publish", address]
    return options
