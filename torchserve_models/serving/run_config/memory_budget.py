"""Divide the memory of a machine or container between Java, the gateway, nginx and the workers.

The formula is documented in docs/operations.md (Memory budget).
"""

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

MIB = 2**20
GIB = 2**30

DEFAULT_BODY_BYTES = 16 * MIB
"""`max_request_size` of config.properties."""
JAVA_NATIVE_BYTES = 256 * MIB
"""Memory of Java's code, classes and threads."""
SUPERVISOR_BYTES = 128 * MIB
GATEWAY_BYTES = 512 * MIB
NGINX_BYTES = 256 * MIB
"""nginx's connections and buffers; docs/gateway.md has the measurements."""

_HEAP_BASE_BYTES = 256 * MIB
"""Heap of the idle front end."""
_HEAP_COPIES = 2
"""Copies of a request body in the heap: the received body, and the message to the worker."""
_DIRECT_COPIES = 2
"""Copies of a request body in direct memory: the buffer of received chunks, and the message to the worker."""
_UNLIMITED_BYTES = 2**60

_OPTIONS = {  # an option is not added if vmargs matches its pattern
    r"-Xmx|-XX:MaxHeapSize=|-XX:MaxRAMPercentage=": "-Xmx{heap}m",
    r"-XX:MaxDirectMemorySize=": "-XX:MaxDirectMemorySize={direct}m",
    r"-XX:[+-](?:ExitOn|CrashOn)OutOfMemoryError": "-XX:+ExitOnOutOfMemoryError",
}


@dataclass(frozen=True)
class MemoryBudget:
    """Memory budget in bytes. `gateway` and `nginx` are 0 if they run in separate containers."""

    total: int
    java_heap: int
    java_direct: int
    java_native: int
    supervisor: int
    gateway: int
    nginx: int
    workers: int
    body: int
    """The largest request body."""
    bodies: int
    """Maximum number of requests with the largest body in flight; nginx enforces it."""

    @property
    def body_bytes(self) -> int:
        """Maximum total bytes of request bodies in flight."""
        return self.bodies * self.body

    def parts(self) -> dict[str, int]:
        """Return the size of each part in bytes, and the number of bodies, for metrics and logs."""
        return asdict(self) | {"body_bytes": self.body_bytes}

    def __str__(self) -> str:
        return (
            f"memory budget of {_mib(self.total)}: Java heap {_mib(self.java_heap)}, direct "
            f"{_mib(self.java_direct)}, native {_mib(self.java_native)}; supervisor {_mib(self.supervisor)}; gateway "
            f"{_mib(self.gateway)}; nginx {_mib(self.nginx)}; workers {_mib(self.workers)}; at most {self.bodies} "
            f"bodies of {_mib(self.body)} at once"
        )


def compute_budget(total: int, body: int = DEFAULT_BODY_BYTES, *, has_edge: bool = True) -> MemoryBudget:
    """Return the budget for `total` bytes and bodies of at most `body` bytes.

    `has_edge` tells whether the gateway and nginx run in the same memory.
    """
    heap = _clamp(total // 4, 512 * MIB, 4 * GIB)
    direct = _clamp(total // 8, 256 * MIB, 2 * GIB)
    gateway, nginx = (GATEWAY_BYTES, NGINX_BYTES) if has_edge else (0, 0)
    fixed = heap + direct + JAVA_NATIVE_BYTES + SUPERVISOR_BYTES + gateway + nginx
    return MemoryBudget(
        total=total,
        java_heap=heap,
        java_direct=direct,
        java_native=JAVA_NATIVE_BYTES,
        supervisor=SUPERVISOR_BYTES,
        gateway=gateway,
        nginx=nginx,
        workers=max(0, total - fixed),
        body=body,
        bodies=max(
            1, min((heap - _HEAP_BASE_BYTES) // (_HEAP_COPIES * body), direct // (_DIRECT_COPIES * body))
        ),
    )


def budget_here(settings: Mapping[str, str]) -> MemoryBudget:
    """Return the budget for this machine or container. A container is assumed to run only TorchServe."""
    total, is_container = memory_limit()
    try:
        body = int(settings.get("max_request_size", DEFAULT_BODY_BYTES))
    except ValueError:
        body = DEFAULT_BODY_BYTES
    return compute_budget(total, max(1, body), has_edge=not is_container)


def java_options(vmargs: str, budget: MemoryBudget) -> list[str]:
    """Return the options in `vmargs`, plus the budget's options that `vmargs` does not set."""
    options = vmargs.split()
    for pattern, option in _OPTIONS.items():
        if not any(re.match(pattern, argument) for argument in options):
            options.append(
                option.format(heap=budget.java_heap // MIB, direct=budget.java_direct // MIB),
            )
    return options


def memory_limit(root: Path = Path("/")) -> tuple[int, bool]:
    """Return the bytes this process may use, and whether a control group (container) sets that limit.

    Supports control groups of versions 1 and 2. Tests set `root` to another directory.
    """
    match = re.search(r"^MemTotal:\s+(\d+) kB", _read(root / "proc/meminfo") or "", re.MULTILINE)
    machine = int(match[1]) * 1024 if match else 4 * GIB
    limits = [limit for limit in _group_limits(root) if 0 < limit < min(machine, _UNLIMITED_BYTES)]
    return (min(limits), True) if limits else (machine, False)


def _group_limits(root: Path) -> list[int]:
    """Return the limits of the process's control groups and their ancestors."""
    base = root / "sys/fs/cgroup"
    files = [base / "memory.max", base / "memory/memory.limit_in_bytes"]
    for line in (_read(root / "proc/self/cgroup") or "").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            group, name = base, "memory.max"
        elif "memory" in controllers.split(","):
            group, name = base / "memory", "memory.limit_in_bytes"
        else:
            continue
        for part in Path(path).parts[1:]:
            group /= part
            files.append(group / name)
    return [int(text) for file in files if (text := (_read(file) or "").strip()).isdigit()]


def _read(path: Path) -> str | None:
    try:
        return path.read_text()
    except OSError:
        return None


def _clamp(value: int, minimum: int, maximum: int) -> int:
    return max(minimum, min(value, maximum)) // MIB * MIB


def _mib(size: int) -> str:
    return f"{size // MIB} MiB"
