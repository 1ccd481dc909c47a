"""Errors of packing, with messages that say what to do.

PackingError
 ├ UnknownModel         the name is not in models/, and --from is not set
 ├ InvalidOptions       options that contradict each other, or an invalid name
 ├ InvalidSource        a folder or repository that lacks files of a model
 │  ├ NoSafetensors
 │  └ UnknownArchitecture
 ├ InvalidHandler       the file of --handler defines no handler
 ├ ChecksumMismatch     a file does not match its recorded digest
 ├ HubError
 │  ├ HubUnreachable    no network, a timeout, or an invalid response
 │  ├ HubAccessDenied   401, 403, gated
 │  ├ HubNotFound       404
 │  └ HubOffline        HF_HUB_OFFLINE is set and the cache is incomplete
 ├ PreparationError     the files of the engine could not be prepared
 ├ LockFileError        the lock file cannot be read or written
 ├ DiskFull             the disk is full
 └ InvalidArchive       a damaged archive, or one from another tool
"""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class PackingError(Exception):
    """Base class of all packing errors; `str(error)` is the message for the user."""


class UnknownModel(PackingError):
    """An unknown model name without a source."""


class InvalidOptions(PackingError):
    """Invalid or contradictory options."""


class InvalidSource(PackingError):
    """A source whose files are missing or invalid."""


class NoSafetensors(InvalidSource):
    """A source without safetensors weights."""


class UnknownArchitecture(InvalidSource):
    """An architecture in config.json that the handlers do not support."""


class InvalidHandler(PackingError):
    """A file that is not valid Python or defines no handler that TorchServe can load."""


class ChecksumMismatch(PackingError):
    """A file whose content does not match its recorded digest."""


class HubError(PackingError):
    """Base class of errors while downloading from the hub."""


class HubUnreachable(HubError):
    """A connection failure, a timeout or an invalid response of the hub."""


class HubAccessDenied(HubError):
    """Denied access: the token is missing or lacks permissions."""


class HubNotFound(HubError):
    """A repository, revision or file that does not exist on the hub."""


class HubOffline(HubError):
    """Files that are not in the cache while HF_HUB_OFFLINE is set."""


class PreparationError(PackingError):
    """A failure of the process that prepares the engine's files."""


class LockFileError(PackingError):
    """A lock file that cannot be read or has invalid content."""


class DiskFull(PackingError):
    """A full disk, or an exceeded quota or file size limit."""


class InvalidArchive(PackingError):
    """A damaged archive, or an archive from another tool."""


@contextmanager
def explain_os_errors(doing: str) -> Iterator[None]:
    """Convert an OSError in the block to a PackingError; `doing` describes the activity in its message."""
    try:
        yield
    except OSError as error:
        raise from_os_error(doing, error) from error


def from_os_error(doing: str, error: OSError) -> PackingError:
    """Convert an OSError to a PackingError whose message contains the path."""
    where = f" ({os.fsdecode(error.filename)})" if error.filename else ""
    if error.errno in _FULL:
        return DiskFull(
            f"No space left while {doing}{where}: {error.strerror}. Free some space, or point --store, HF_HOME or "
            "TMPDIR at a disk that has it, then run the same command again."
        )
    return PackingError(f"Failed while {doing}{where}: {error.strerror or error}.")
