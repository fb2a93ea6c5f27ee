"""All-atom reference data as bead trajectories: water made to order, or a trajectory at hand."""
from .read import read_trajectory
from .select import select_frames
from .simulate import run_water

__all__ = ["read_trajectory", "run_water", "select_frames"]
