"""A short production run, and its interruption."""

import pytest

from openmm_cgadv import run_production

SHORT = dict(length=4.0, equilibration=0.5, frame_interval=0.02)


def interrupt(model, directory):
    """Stop a run before its end."""

    def stop(done, total):
        if done > 2.99:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_production(model, directory, **SHORT, progress=stop)
