"""Backends that compute the learned energy in OpenMM, one file each."""
