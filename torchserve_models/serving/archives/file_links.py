"""Hard-link a file, or copy it if links are not allowed."""

import errno
import fcntl
import os
import shutil
from contextlib import suppress
from pathlib import Path

MIN_FREE_BYTES = 2**30
"""Minimum free space in the file system after a copy."""
_FICLONE = 0x40049409  # linux/fs.h
_NO_LINKS = (errno.EPERM, errno.EMLINK, errno.EXDEV, errno.EOPNOTSUPP)


def link_or_copy(source: Path, target: Path) -> None:
    """Hard-link `source` to `target`, which must not exist; copy the file if links are not allowed.

    By default (`fs.protected_hardlinks`), Linux rejects links to files that belong to another user and that this
    user cannot write. The copy shares its blocks with `source` if the file system supports it (Btrfs, XFS).

    Raises:
        OSError: Neither a link nor a copy is possible. ENOSPC: a copy would leave less than MIN_FREE_BYTES.
    """
    try:
        os.link(source, target)
        return
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
    with open(source, "rb") as original, open(target, "xb") as copy:
        try:
            if not _share_blocks(copy.fileno(), original.fileno()):
                _check_space(target, os.fstat(original.fileno()).st_size)
                shutil.copyfileobj(original, copy, 2**20)
        except BaseException:
            with suppress(OSError):
                target.unlink()
            raise


def _share_blocks(copy: int, original: int) -> bool:
    try:
        fcntl.ioctl(copy, _FICLONE, original)
    except OSError:
        return False
    return True


def _check_space(target: Path, size: int) -> None:
    if shutil.disk_usage(target.parent).free - size < MIN_FREE_BYTES:
        raise OSError(
            errno.ENOSPC,
            f"a copy of {size / 2**20:.0f} MiB would leave less than {MIN_FREE_BYTES / 2**20:.0f} MiB free",
            str(target),
        )
