"""The compiled library: whether it is there, what it is, and its operators with errors of this package."""

from __future__ import annotations

import ctypes
import logging
import re
from collections.abc import Callable
from functools import lru_cache, wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ..errors import CGAdvError, ExplosionError, InputError, OutOfMemoryError

if TYPE_CHECKING:
    from ..potentials import PotentialSpec

_LIBRARY = Path(__file__).parents[1] / "_lib" / "libcgadv_torch.so"
_ERRORS: dict[str, type[CGAdvError]] = {
    error.__name__: error for error in (ExplosionError, InputError, OutOfMemoryError)
}
_ERROR = re.compile(rf"({'|'.join(_ERRORS)})\[([^]]*)\]: (.*)", re.DOTALL)
"""How csrc/torch_ops/ops.cpp begins the message of an error: its name, its attributes, its sentence."""

log = logging.getLogger(__name__)


def _load() -> str:
    if not _LIBRARY.exists():
        return (
            "the fused kernels were not built: install the package where cmake and a C++ compiler "
            "are found (pip install .)"
        )
    try:
        torch.ops.load_library(str(_LIBRARY))
        torch.ops.cgadv.noise(0, 0, 0, 0, 0, 0)
    except (OSError, RuntimeError) as error:
        return f"the fused kernels could not be loaded: {error}; install the package again"
    return ""


def library_path() -> Path:
    """Path of the operator library, for ``torch.ops.load_library`` in other programs."""
    return _LIBRARY


def instruction_set() -> str:
    """Name of the build that runs on this processor, such as ``x86_64_v3``.

    The environment variable ``CGADV_KERNELS`` set to such a name chooses another one.
    """
    lib = ctypes.CDLL(str(_LIBRARY))
    lib.cgadv_instruction_set.restype = ctypes.c_char_p
    return lib.cgadv_instruction_set().decode()


def compiler() -> str:
    """Name and version of the compiler that built the library."""
    lib = ctypes.CDLL(str(_LIBRARY))
    lib.cgadv_compiler.restype = ctypes.c_char_p
    return lib.cgadv_compiler().decode()


_WHY_NOT = _load()


def available(spec: PotentialSpec | None = None) -> bool:
    """Return whether the compiled core is loaded and has every term of a potential, if one is given.

    Where the core is not loaded, the log says once what is lost.
    """
    if _WHY_NOT:
        _log_once()
        return False
    return spec is None or spec.compiled


@lru_cache
def _log_once() -> None:
    log.warning("plain torch is used, one to two orders slower: %s", _WHY_NOT)


def why_not() -> str:
    """One line that says why :func:`available` is False; empty if it is True."""
    return _WHY_NOT


class _Operators:
    """torch.ops.cgadv, with errors of this package."""

    def __getattr__(self, name: str) -> Callable[..., Any]:
        operator = getattr(torch.ops.cgadv, name)

        @wraps(operator)
        def call(*arguments: Any) -> Any:
            try:
                return operator(*arguments)
            except RuntimeError as error:
                translated = _translated(error)
                if translated is None:
                    raise
                raise translated from None

        setattr(self, name, call)
        return call


_operators = _Operators()


def operators() -> _Operators:
    """Return the operators of the compiled core.

    They raise ExplosionError, whose attributes ``step``, ``replica`` and ``bead`` count from 0 and are None where
    they are not known, InputError and OutOfMemoryError.

    Raises
    ------
    RuntimeError
        If the core is not there.
    """
    if _WHY_NOT:
        raise RuntimeError(_WHY_NOT)
    return _operators


def _translated(error: RuntimeError) -> CGAdvError | None:
    found = _ERROR.search(str(error))
    if found is None:
        return None
    translated = _ERRORS[found[1]](found[3].strip())
    if isinstance(translated, ExplosionError):
        attributes = dict(pair.split("=") for pair in found[2].split())
        for name in ("step", "replica", "bead"):
            value = int(attributes[name])
            setattr(translated, name, value if value >= 0 else None)
    return translated
