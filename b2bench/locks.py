"""Locks of the operating system, which end with the process that holds them, however it ends."""

from __future__ import annotations

import errno
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock

from b2bench.errors import UserError

# It tells every lock at level DEBUG, which a plugin may have switched on for itself.
logging.getLogger("filelock").setLevel(logging.WARNING)

NO_LOCKS = (errno.EOPNOTSUPP, errno.ENOSYS, errno.ENOLCK)
"""What a file system without locks answers, such as Lustre, Samba or NFS by their settings"""


def process_lock(path: Path, mode: int = -1) -> FileLock:
    """Return a lock that is never that of a file's existence, which a killed process would leave behind for ever."""
    return FileLock(path, mode, fallback_to_soft=False)


@contextmanager
def lockable(what: str, instead: str) -> Iterator[None]:
    """Acquire a lock of ``what`` in the block.

    Raises:
        UserError: its file system has no locks; the message tells to try ``instead``.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        raise lockless(what, instead) from None


def lockless(what: str, instead: str) -> UserError:
    """Return what is said of a file system without locks."""
    return UserError(
        f"{what} is on a file system that locks no files; try {instead} on a local disk, and copy it afterwards"
    )
