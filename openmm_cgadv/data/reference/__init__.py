"""All-atom reference data as CG trajectories: a built-in liquid, or a trajectory of the user."""

from .read import read_trajectory
from .select import select_frames
from .simulate import run_liquid

__all__ = ["read_trajectory", "run_liquid", "select_frames"]
