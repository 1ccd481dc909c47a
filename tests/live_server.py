"""The processes of a server that a test started."""

import os

import psutil

import serving


def processes(running: serving.Server) -> list[psutil.Process]:
    """The front end and its workers."""
    children = psutil.Process(os.getpid()).children(recursive=True)
    return [child for child in children if any(str(running.run_dir) in part for part in child.cmdline())]


def alive(process: psutil.Process) -> bool:
    """An ended process whose parent has not waited for it yet is not."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
