"""The OpenMM platforms of this machine, and those that are suitable as default."""

from __future__ import annotations

import ctypes
from functools import lru_cache

import openmm

from .errors import InputError

_CL_DEVICE_TYPE_GPU, _CL_DEVICE_TYPE_ACCELERATOR = 1 << 2, 1 << 3


def platform_names() -> list[str]:
    """Return the names of the platforms that OpenMM has loaded, in its own order."""
    return [
        openmm.Platform.getPlatform(k).getName() for k in range(openmm.Platform.getNumPlatforms())
    ]


def find_platform(name: str) -> openmm.Platform:
    """Return the OpenMM platform with the given name.

    Raises
    ------
    InputError
        There is no such platform; the message lists the available ones.
    """
    known = platform_names()
    if name not in known:
        raise InputError(f"platform: found {name!r}, expected one of {', '.join(known)}")
    return openmm.Platform.getPlatform(name)


def default_platforms() -> list[str]:
    """Return the platforms that are suitable as default, the fastest first.

    OpenMM ranks OpenCL before its CPU platform even if the only OpenCL device is the processor. There
    it is slower, untested by OpenMM, and crashes in some functions. This function then excludes
    OpenCL; it remains available by name.
    """
    platforms = [openmm.Platform.getPlatform(name) for name in platform_names()]
    ranked = [each.getName() for each in sorted(platforms, key=lambda each: -each.getSpeed())]
    return [name for name in ranked if name != "OpenCL" or has_opencl_gpu()]


@lru_cache
def has_opencl_gpu() -> bool:
    """Return whether an OpenCL device of this machine is a GPU or another accelerator."""
    try:
        cl = ctypes.CDLL("libOpenCL.so.1")
    except OSError:
        return False
    count = ctypes.c_uint32()
    if cl.clGetPlatformIDs(0, None, ctypes.byref(count)) != 0 or count.value == 0:
        return False
    platforms = (ctypes.c_void_p * count.value)()
    cl.clGetPlatformIDs(count, platforms, None)
    device_types = ctypes.c_uint64(_CL_DEVICE_TYPE_GPU | _CL_DEVICE_TYPE_ACCELERATOR)
    for each in platforms:
        devices = ctypes.c_uint32()
        found = cl.clGetDeviceIDs(
            ctypes.c_void_p(each), device_types, 0, None, ctypes.byref(devices)
        )
        if found == 0 and devices.value > 0:
            return True
    return False
