"""Structure and motion of bead trajectories, all-atom against coarse-grained, and the report."""
