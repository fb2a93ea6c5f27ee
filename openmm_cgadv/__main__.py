"""The command `cgadv`, as ``python -m openmm_cgadv``."""

from .workflow.cli import app

if __name__ == "__main__":
    app(prog_name="python -m openmm_cgadv")
