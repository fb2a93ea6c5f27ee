"""The RAM of the machine."""

from __future__ import annotations

import os

from .errors import InputError


def installed_ram() -> int | None:
    """Return the RAM of the machine in bytes; None if the operating system does not say."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return None


def check_ram(needed: float, what: str) -> None:
    """Refuse work that needs more RAM than the machine has.

    Parameters
    ----------
    needed : float
        Estimate in bytes.
    what : str
        Beginning of the message, up to the verb.

    Raises
    ------
    InputError
        It needs more.
    """
    there = installed_ram()
    if there is not None and needed > there:
        raise InputError(
            f"{what} about {needed / 2**30:.3g} GB of RAM, expected at most the {there / 2**30:.3g} GB of this machine"
        )
