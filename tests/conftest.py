"""Fixtures that all tests share."""

import pytest
import torch

from openmm_cgadv.export.system import BACKENDS


@pytest.fixture(autouse=True)
def empty_working_directory(tmp_path, monkeypatch):
    """Run each test in an empty folder.

    A Python program looks for modules in the working directory first: programs that tests start
    find the installed package, not the sources in this project.
    """
    monkeypatch.chdir(tmp_path)


@pytest.fixture(autouse=True)
def seeded_random_numbers():
    """Draw the same random numbers in a test whatever tests ran before it."""
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def skip_platforms_without_the_backend(request):
    """Skip a test of a backend on a platform where the backend says that it can't be used."""
    parameters = request.node.callspec.params if hasattr(request.node, "callspec") else {}
    backend, platform = parameters.get("backend"), parameters.get("platform")
    if backend in BACKENDS and isinstance(platform, str):
        reason = BACKENDS[backend].why_not(platform)
        if reason is not None:
            pytest.skip(reason)
