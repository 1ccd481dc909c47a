"""The cores of one server: the setting `cores` of config.properties."""

import os
import re
from collections.abc import Mapping, Set

from handlers.core.device import usable_cores
from torchserve_models.serving.errors import ConfigError

SETTING, ALL = "cores", "all"

_RANGE = re.compile(r"(\d{1,6})(?:-(\d{1,6}))?")


def parse_cores(value: str, allowed: Set[int]) -> frozenset[int]:
    """Return the numbers of the cores that a server may use.

    Args:
        value: `all`, a number of cores, or a list of core numbers and ranges such as `0-3,8` or `2-2`.
        allowed: The cores that this process may use. A number of cores selects the first ones of them.

    Raises:
        ConfigError: The value is none of these, or lists a core that is not allowed.
    """
    if value == ALL:
        return frozenset(allowed)
    if value.isascii() and value.isdigit() and int(value) > 0:
        return frozenset(sorted(allowed)[: int(value)])
    ranges = [_RANGE.fullmatch(part.strip()) for part in value.split(",")]
    if value.isdigit() or not all(ranges):
        raise ConfigError(
            f"config.properties: {value!r} is not a value of {SETTING!r}; set it to {ALL}, to a number of cores such "
            "as 4, or to core numbers such as 0-3,8"
        )
    cores = {
        core
        for match in ranges
        if match
        for core in range(int(match[1]), int(match[2] if match[2] else match[1]) + 1)
    }
    if unusable := sorted(cores - allowed):
        raise ConfigError(
            f"config.properties: {SETTING!r} lists core {unusable[0]}, which this process may not use; usable cores: "
            f"{', '.join(map(str, sorted(allowed)))}"
        )
    if not cores:
        raise ConfigError(f"config.properties: {SETTING!r} has no cores in {value!r}; write 0-3, not 3-0")
    return frozenset(cores)


def server_cores(settings: Mapping[str, str]) -> frozenset[int]:
    """Return the cores that the front end and the workers may use. Raises ConfigError."""
    value = settings.get(SETTING, ALL)
    if hasattr(os, "sched_getaffinity"):
        return parse_cores(value, os.sched_getaffinity(0))
    if value != ALL:
        raise ConfigError(
            f"config.properties: {SETTING!r} must be {ALL} on this system; only Linux can limit cores"
        )
    return frozenset(range(os.cpu_count() or 1))


def count_cores(settings: Mapping[str, str]) -> int:
    """Return the number of cores that the workers may use: those of the server, limited by the cgroup's quota.

    Raises ConfigError.
    """
    return min(len(server_cores(settings)), usable_cores())
