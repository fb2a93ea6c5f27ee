"""From a trained model to OpenMM: the bundle, and Systems and integrators made from it."""

from .bundle import BundleError, Model, load, save_bundle

__all__ = ["BundleError", "Model", "load", "save_bundle"]
