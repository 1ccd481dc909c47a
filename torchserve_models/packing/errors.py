"""What can go wrong while packing: one tree, each message says what to do.

PackingError
 ├ UnknownModel            the name has no folder in models/ and no --from was given
 ├ BadRequest              options that contradict each other, a name TorchServe would refuse
 ├ BadSource               a folder or repository that does not hold what a model needs
 │  ├ NoSafetensors
 │  └ UnknownArchitecture
 ├ BadHandler              the file of --handler is none that a worker can load
 ├ WrongContent            a file is not the one whose digest is recorded
 ├ HubError
 │  ├ HubUnreachable       no network, no answer in time, or an answer that is not a hub's
 │  ├ HubRefused           401, 403, gated
 │  ├ HubNotFound          404
 │  └ HubOffline           HF_HUB_OFFLINE is set and the files are not all here
 ├ NotPrepared             what workers are spared at their start could not be made
 ├ BadLock                 the lock file cannot be read or written
 ├ NoSpace                 the disk is full
 └ BadArchive              an archive that is not ours or not whole
"""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class PackingError(Exception):
    """Anything that keeps an archive from being built; `str()` is one message for a person."""


class UnknownModel(PackingError):
    """No such model in models/, and no source was given for it."""


class BadRequest(PackingError):
    """What was asked for cannot be done, whatever the source holds."""


class BadSource(PackingError):
    """The source does not hold what a model needs."""


class NoSafetensors(BadSource):
    """Weights are missing, or there only as pickles, which are never opened."""


class UnknownArchitecture(BadSource):
    """The architecture of config.json is none that the handlers can load."""


class BadHandler(PackingError):
    """Not Python, or not what TorchServe takes for a handler."""


class WrongContent(PackingError):
    """A file differs from the digest that was recorded for it."""


class HubError(PackingError):
    """The hub did not give what was asked for."""


class HubUnreachable(HubError):
    """Nobody answers, or not in time, or not as a hub does."""


class HubRefused(HubError):
    """The hub wants a token, or one with more rights."""


class HubNotFound(HubError):
    """The hub knows no such repository, revision or file."""


class HubOffline(HubError):
    """The network is switched off by HF_HUB_OFFLINE and the cache does not hold the files."""


class NotPrepared(PackingError):
    """The process that makes the engine's files failed."""


class BadLock(PackingError):
    """models/lock.json cannot be read or written."""


class NoSpace(PackingError):
    """The disk is full, or a quota or size limit is reached."""


class BadArchive(PackingError):
    """Not an archive of ours, or a damaged one."""


@contextmanager
def explained(doing: str) -> Iterator[None]:
    """Turns what the operating system says while `doing` something into one of the errors above."""
    try:
        yield
    except OSError as error:
        raise from_os_error(doing, error) from error


def from_os_error(doing: str, error: OSError) -> PackingError:
    """The PackingError of an OSError, with the file it is about."""
    where = f" ({os.fsdecode(error.filename)})" if error.filename else ""
    if error.errno in _FULL:
        return NoSpace(
            f"No space left while {doing}{where}: {error.strerror}. Free some space, or point --store, HF_HOME or "
            "TMPDIR at a disk that has it, then run the same command again."
        )
    return PackingError(f"Failed while {doing}{where}: {error.strerror or error}.")
