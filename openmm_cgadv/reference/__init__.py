"""All-atom reference data as bead trajectories: water made to order, or a trajectory at hand."""
from .read import read_trajectory
from .simulate import run_water

__all__ = ["read_trajectory", "run_water"]
