"""OpenMM Systems, forces and integrators made from a model."""
