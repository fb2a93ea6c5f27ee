"""Builds the compiled core through CMake where that is possible; the package works without it."""

import importlib.util
import os
import platform
import runpy
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

HERE = Path(__file__).resolve().parent
LOST = "fused kernels were not built ({}); everything runs on plain torch, only slower"


def find_openmm():
    """Folder of OpenMM's libraries and its version, both empty where there is none.

    Where a build is isolated from the packages of its interpreter, the OpenMM that is installed there still comes
    first: it is the one that will load the plugin.
    """
    folders = [Path(sysconfig.get_path(name)) / "openmm" for name in ("platlib", "purelib")]
    found = importlib.util.find_spec("openmm")
    folders += [Path(folder) for folder in (found.submodule_search_locations if found else ())]
    for folder in folders:
        if (folder / "version.py").is_file():
            version = runpy.run_path(str(folder / "version.py"))
            library = Path(version["openmm_library_path"])
            if (library.parent / "include" / "OpenMM.h").is_file():
                return library, version["short_version"]
    return "", ""


class BuildCore(build_ext):
    """Runs CMake and installs its libraries into openmm_cgadv/_lib."""

    def build_extension(self, ext):
        try:
            self.run_cmake(ext)
        except Exception as error:
            reason = str(error).strip().splitlines()[-1] if str(error).strip() else repr(error)
            print(LOST.format(reason), file=sys.stderr)

    def run_cmake(self, ext):
        if shutil.which("cmake") is None:
            raise RuntimeError("cmake was not found")
        target = Path(self.get_ext_fullpath(ext.name)).resolve().parent / "_lib"
        build = (Path(self.build_temp) / platform.machine()).resolve()
        build.mkdir(parents=True, exist_ok=True)
        configure = [
            "cmake",
            str(HERE),
            f"-DCMAKE_INSTALL_PREFIX={target}",
            "-DCMAKE_BUILD_TYPE=Release",
            f"-DCGADV_LEVELS={os.environ.get('CGADV_LEVELS', '')}",
        ]
        library, version = find_openmm()
        if not library:
            print(
                "OpenMM with its headers was not found: the plugin for it was not built",
                file=sys.stderr,
            )
        configure += [f"-DCGADV_OPENMM_LIBRARY={library}", f"-DCGADV_OPENMM_VERSION={version}"]
        if shutil.which("ninja"):
            configure += ["-G", "Ninja"]
        for command in (
            configure,
            ["cmake", "--build", ".", "--parallel", str(os.cpu_count())],
            ["cmake", "--install", "."],
        ):
            done = subprocess.run(command, cwd=build, capture_output=True, text=True)
            if done.returncode:
                print(done.stdout, done.stderr, sep="\n", file=sys.stderr)
                if "CMAKE_CXX_COMPILER" in done.stderr:
                    raise RuntimeError("no working C++ compiler was found")
                raise RuntimeError(f"{' '.join(command[:2])} failed, see above")

    def get_outputs(self):
        return []

    def copy_extensions_to_source(self):
        built = Path(self.build_lib) / "openmm_cgadv" / "_lib"
        target = HERE / "openmm_cgadv" / "_lib"
        for library in built.glob("*.so"):
            target.mkdir(exist_ok=True)
            # A library that a running program has mapped is replaced, never written over.
            (target / library.name).unlink(missing_ok=True)
            shutil.copy2(library, target / library.name)


setup(ext_modules=[Extension("openmm_cgadv._core", sources=[])], cmdclass={"build_ext": BuildCore})
