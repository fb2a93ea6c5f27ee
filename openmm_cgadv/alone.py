"""One process at a time works on a directory or writes a file, where locks are known."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO


def locked(directory: Path) -> IO:
    """An open file that keeps other processes from working on a directory.

    Raises
    ------
    RuntimeError
        Another process works there.
    """
    return _lock(directory / ".lock", directory)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """While it lasts, keep other processes from writing a file; its folder is made.

    Raises
    ------
    RuntimeError
        Another process writes it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = path.with_name(f".{path.name}.lock")
    with _lock(lock, path):
        try:
            yield
        finally:
            lock.unlink(missing_ok=True)


def _lock(file: Path, place: Path) -> IO:
    opened = open(file, "w")
    try:
        import fcntl

        fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        opened.close()
        raise RuntimeError(f"{place}: another cgadv works there, expected to be alone") from None
    except (ImportError, OSError):
        # A system or a file system without locks.
        pass
    return opened
