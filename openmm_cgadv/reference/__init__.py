"""All-atom reference data as bead trajectories: a liquid made to order, or a trajectory at hand."""
from .read import read_trajectory
from .select import select_frames
from .simulate import run_liquid

__all__ = ["read_trajectory", "run_liquid", "select_frames"]
