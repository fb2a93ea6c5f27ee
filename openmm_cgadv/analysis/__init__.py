"""Observables of CG trajectories, one file a quantity: structure, motion of single beads, collective motion."""
