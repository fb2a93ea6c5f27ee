"""Locks of directories and files, and atomic writes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from .errors import LockedError


def locked(directory: Path) -> IO:
    """Lock a directory against other processes.

    The lock has no effect if the operating system or the file system does not support locks.

    Returns
    -------
    file
        An open file; closing it releases the lock.

    Raises
    ------
    LockedError
        Another process has locked the directory.
    """
    return _lock(directory / ".lock", directory)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Lock a file against other processes while it is written; create its directory.

    Raises
    ------
    LockedError
        Another process writes the file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = path.with_name(f".{path.name}.lock")
    with _lock(lock, path):
        try:
            yield
        finally:
            lock.unlink(missing_ok=True)


@contextmanager
def replacing(path: str | os.PathLike) -> Iterator[Path]:
    """Yield the path of a partial file, which replaces `path` when the block ends without an error.

    After an error, `path` is what it was before, and the partial file is deleted. A process that is
    killed leaves the partial file, which the next call deletes. The directory is created.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    partial.unlink(missing_ok=True)
    try:
        yield partial
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    os.replace(partial, path)


def write_atomic(path: str | os.PathLike, content: str | bytes) -> None:
    """Write a file atomically; an existing file at `path` is replaced."""
    with replacing(path) as partial:
        partial.write_bytes(content.encode() if isinstance(content, str) else content)


def _lock(file: Path, place: Path) -> IO:
    opened = open(file, "w")
    try:
        import fcntl

        fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        opened.close()
        raise LockedError(
            f"{place}: another cgadv works there, expected to be the only one"
        ) from None
    except (ImportError, OSError):
        # A system or a file system without locks.
        pass
    return opened
