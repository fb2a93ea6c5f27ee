"""Locks of directories and files, atomic writes, and files that a crash may have damaged."""

from __future__ import annotations

import csv
import json
import os
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np

from .errors import InputError, LockedError


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


def read_json(path: Path, remedy: str) -> dict[str, Any]:
    """Return the content of a JSON file of this package.

    Parameters
    ----------
    path : Path
    remedy : str
        What to do if the file is corrupt, the end of the message.

    Raises
    ------
    InputError
        The file holds something else than a JSON object.
    """
    try:
        content = json.loads(path.read_bytes())
    except ValueError as error:
        raise InputError(f"{path} is corrupt: {remedy}") from error
    if not isinstance(content, dict):
        raise InputError(f"{path} is corrupt: {remedy}")
    return content


def read_npz(path: Path, remedy: str) -> dict[str, np.ndarray]:
    """Return the arrays of an NPZ file of this package; nothing in it is executed.

    Parameters
    ----------
    path : Path
    remedy : str
        What to do if the file is corrupt, the end of the message.

    Raises
    ------
    InputError
        The file is no complete NPZ file, or fails its checksums.
    """
    try:
        with open(path, "rb") as file, zipfile.ZipFile(file) as archive:
            if archive.testzip() is not None:
                raise zipfile.BadZipFile("a checksum is wrong")
        with np.load(path, allow_pickle=False) as file:
            return dict(file)
    except FileNotFoundError:
        raise
    except (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        raise InputError(f"{path} is corrupt: {remedy}") from error


def read_csv(path: Path, remedy: str) -> list[list[str]]:
    """Return the rows of a CSV file of this package.

    Parameters
    ----------
    path : Path
    remedy : str
        What to do if the file is corrupt, the end of the message.

    Raises
    ------
    InputError
        The file is not text.
    """
    try:
        with open(path, newline="", encoding="utf-8") as file:
            return list(csv.reader(file))
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path} is corrupt: {remedy}") from error


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
