"""Methods that fit a coarse-grained model to a reference trajectory.

``METHODS`` maps the name of a method to the object that implements :class:`~openmm_cgadv.methods.base.Method`.
"""

from .adversarial.method import AdversarialMethod
from .base import Method, Result

METHODS: dict[str, Method] = {"adversarial": AdversarialMethod()}

__all__ = ["METHODS", "Method", "Result"]
