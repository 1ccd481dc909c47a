"""Helpers for tests that start a server: free ports and the server's processes."""

import os
import random

import psutil

from torchserve_models import serving
from torchserve_models.serving.errors import PortTaken
from torchserve_models.serving.run_config import config_file
from torchserve_models.serving.run_config.ports import Ports, check_free


def processes(running: serving.Server) -> list[psutil.Process]:
    """Return the processes of the front end and its workers."""
    children = psutil.Process(os.getpid()).children(recursive=True)
    return [child for child in children if alive(child) and _is_of(running, child)]


def _is_of(running: serving.Server, process: psutil.Process) -> bool:
    try:
        return any(str(running.run_dir) in part for part in process.cmdline())
    except (psutil.ZombieProcess, psutil.NoSuchProcess):  # it ended just now
        return False


def alive(process: psutil.Process) -> bool:
    """Return whether the process runs; False for zombies."""
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def free_offset() -> int:
    """Return an offset with which all ports are free and below the range for outgoing connections."""
    settings = config_file.read()
    ports = Ports.from_settings(settings)
    for offset in random.sample(range(3000, 20000, 10), 100):
        try:
            check_free(ports.shifted(offset).settings(settings))
        except PortTaken:
            continue
        return offset
    raise AssertionError("no free ports")
