"""CG trajectories: mapping of atoms to beads, H5MD files, and the all-atom reference."""
