"""Run operations that may end the process in child processes.

A library that was built for another version of OpenMM or torch ends the process if a function
is missing, which no exception handler can prevent; some drivers crash. A child process does the
work, and this module reports the result of each part.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass

TIMEOUT = 300
"""Default time after which a child counts as hanging (s)."""

_RUN = (
    "import sys; sys.path[:] = {path!r}; del sys.argv[0]; "
    "import runpy; runpy.run_path(sys.argv[0], run_name='__main__')"
)
"""Run a program with a given module search path.

Python itself would insert the directory of the program or the working directory first. It may contain
another copy of this package, such as its sources without the compiled libraries.
"""


@dataclass(frozen=True)
class Attempt:
    """Result of one part of the work of a child process.

    Attributes
    ----------
    output : str
        Its output; empty if it failed.
    failure : str or None
        Reason of the failure, in one line.
    """

    output: str = ""
    failure: str | None = None


def attempt_each(
    program: str | os.PathLike,
    arguments: Iterable[str],
    names: Iterable[str],
    timeout: float = TIMEOUT,
) -> dict[str, Attempt]:
    """Run a Python program that tries several operations, again until all of them were tried.

    Parameters
    ----------
    program : path
        Python file, run with the module search path of this process. It calls
        :func:`run_each`, or prints the same lines.
    arguments : iterable of str
        Its arguments before the names.
    names : iterable of str
        Operations to try. If one ends the program, it is run again for the remaining ones.
    timeout : float
        Time limit of one run (s).

    Returns
    -------
    dict of str to Attempt
    """
    left, found = list(names), {}
    while left:
        lines, end = _run([os.fspath(program), *arguments, *left], timeout)
        begun = None
        for line in lines:
            word, _, rest = line.partition(" ")
            if word == "begin":
                begun = rest
            elif begun is not None and word in ("works", "fails"):
                found[begun] = Attempt(rest) if word == "works" else Attempt(failure=rest)
                begun = None
        if begun is not None:
            found[begun] = Attempt(failure=end)
        else:
            # It ended outside of the operations: another run would end there as well.
            found |= {name: Attempt(failure=end) for name in left if name not in found}
        left = [name for name in left if name not in found]
    return found


def run_each(names: Iterable[str], work: Callable[[str], object]) -> None:
    """Run in the child process: call ``work(name)`` for every name and print the result."""
    for name in names:
        print("begin", name, flush=True)
        try:
            result = work(name)
        except Exception as error:
            print("fails", " ".join(str(error).split()) or type(error).__name__, flush=True)
        else:
            print("works", "" if result is None else result, flush=True)


def _run(arguments: list[str], timeout: float) -> tuple[list[str], str]:
    """Return the lines that a child process printed, and a description of its end."""
    code = _RUN.format(path=[str(place) for place in sys.path])
    try:
        done = subprocess.run(
            [sys.executable, "-c", code, *arguments],
            capture_output=True,
            text=True,
            timeout=timeout,
        )
    except subprocess.TimeoutExpired as error:
        return (error.stdout or b"").decode().splitlines(), f"it does not end within {timeout:g} s"
    return done.stdout.splitlines(), describe_end(done.returncode, done.stderr)


def describe_end(status: int, errors: str) -> str:
    """Return a description of the end of a process, from its exit status and its standard error."""
    missing = re.search(r"(\S+): undefined symbol: (\w+)", errors)
    if missing:
        library, symbol = os.path.basename(missing[1]), missing[2]
        return (
            f"{library} needs the symbol {symbol}, which is missing: it was built for another "
            "version of OpenMM or torch"
        )
    if status < 0:
        return f"it ends the process with {signal.Signals(-status).name}"
    last = errors.strip().splitlines()[-1:]
    return last[0] if last else f"it ends the process with status {status}"
