"""The entry point of OpenMM-ML: `MLPotential("cgadv", path="NAME.cg")`.

OpenMM-ML loads all entry points while it is imported. This module therefore does not import OpenMM-ML:
otherwise an import of it would import OpenMM-ML, which would load this unfinished module.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .potential import Potential


class Factory:
    """Create the potential of a model bundle; OpenMM-ML registers an instance under the name cgadv."""

    def createImpl(self, name: str, path: str | None = None, **unknown: object) -> Potential:
        """Return the potential of a model bundle.

        Parameters
        ----------
        name : str
            Name under which the factory is registered.
        path : path
            Directory of the bundle.

        Raises
        ------
        ValueError
            `path` is missing or is not a bundle, or there is another argument.
        """
        if path is None or unknown:
            found = ", ".join(unknown) or "nothing"
            raise ValueError(
                f'MLPotential("{name}"): found {found}, expected path=, the directory of a bundle'
            )
        from .potential import Potential

        return Potential(path)
