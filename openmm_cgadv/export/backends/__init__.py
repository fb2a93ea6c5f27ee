"""The backends that compute the learned energy inside OpenMM, one file each."""
