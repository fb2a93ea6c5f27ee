"""Simulations of a model in OpenMM: production runs, reporters, thermostat, larger systems."""
