"""Puts what the checks need into one folder, laid out as a checkout: for a GPU machine where nothing of Longhaul is built."""

import lzma
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tarfile

from tools.gpu.parts import BINARIES, ROOT
from tools.launcher import model

# Python and data of a checkout that run there, and a package of pure Python that few machines have.
SOURCES = ("tools/gpu/*.py", "tools/launcher/*.py", "tools/bench/*.py", "tests/gpu/*.py", "tests/reference/*.py",
           "tests/bench/*.py", "tests/router/text/*.py", "tests/e2e/exact_answers.py", "tests/e2e/disturbance.py",
           "tests/e2e/phases.py", "tests/e2e/golden/*")
PACKAGE = "gguf==0.19.0"
# What libuct.so.0 loads from the folder ucx beside it, and where that folder's own libraries lie in the wheel.
UCX_PLUGINS = ("libuct_cma.so.0", "libuct_cuda.so.0", "libucm_cuda.so.0", "libucx_perftest_cuda.so.0")
UCX_WHEEL_LIBRARIES = "../../libucx_cu13.libs"
UCX_PERFTEST = "../bin/ucx_perftest"
# Found on the GPU machine, not carried: the C and C++ runtimes, and cuBLAS and NCCL, which are larger than all the rest.
THERE = re.compile(r"^(?:ld-linux|linux-vdso|lib(?:c|m|dl|rt|pthread|stdc\+\+|gcc_s|cublas|cublasLt|nccl|cuda)\.so)")
# The binaries hold the same kernels and libraries again and again: a dictionary that reaches over all of them keeps one copy.
DICTIONARY_BYTES = 192 << 20


def libraries(binary):
    """Paths of the shared libraries that a binary loads and the GPU machine lacks."""
    listing = subprocess.run(["ldd", binary], capture_output=True, text=True, check=True).stdout
    found = [line.split("=>")[1].split()[0] for line in listing.splitlines() if "=> /" in line]
    return [path for path in found if not THERE.match(os.path.basename(path))]


def stage_ucx(libraries_folder, folder):
    """What the UCX in a folder loads by name, and its own benchmark where it is there."""
    found = [libraries_folder / "ucx" / name for name in UCX_PLUGINS] + [libraries_folder / UCX_PERFTEST]
    (folder / "lib" / "ucx").mkdir(exist_ok=True)
    for file in filter(pathlib.Path.is_file, found):
        to = folder / ("lib/ucx" if file.suffix else BINARIES) / file.name
        subprocess.run(["strip", "-o", to, file], check=True)
    for file in (libraries_folder / UCX_WHEEL_LIBRARIES).glob("*.so*"):
        shutil.copy(file, folder / "lib")


def copy_sources(folder):
    for pattern in SOURCES:
        for file in ROOT.glob(pattern):
            to = folder / file.relative_to(ROOT)
            to.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, to)


def bytes_of(folder):
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def pack(folder):
    """FOLDER.tar.xz of it."""
    archive = folder.with_name(f"{folder.name}.tar.xz")
    filters = [{"id": lzma.FILTER_X86}, {"id": lzma.FILTER_LZMA2, "preset": 6, "dict_size": DICTIONARY_BYTES}]
    with lzma.open(archive, "wb", filters=filters) as file, tarfile.open(fileobj=file, mode="w") as tar:
        tar.add(folder, folder.name)
    return archive


def stage(folder, parts, build, with_model):
    names = sorted({name for part in parts for name in part.binaries})
    subprocess.run(["ninja", "-C", build, *names], check=True)
    for part in ("lib", BINARIES):
        (folder / part).mkdir(parents=True, exist_ok=True)
    copied = set()
    for name in names:
        binary = pathlib.Path(build, "bin", name)
        subprocess.run(["strip", "-o", folder / BINARIES / name, binary], check=True)
        for library in map(pathlib.Path, libraries(binary)):
            if library in copied:
                continue
            copied.add(library)
            subprocess.run(["strip", "-o", folder / "lib" / library.name, library], check=True)
            if library.name == "libuct.so.0":
                stage_ucx(library.resolve().parent, folder)
    copy_sources(folder)
    subprocess.run([sys.executable, "-m", "pip", "install", "-q", "--root-user-action=ignore", "--no-deps", "--upgrade", "--target",
                    folder / "python", PACKAGE], check=True)
    if with_model:
        to = folder / model.DEFAULT.path.relative_to(ROOT)
        to.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(model.DEFAULT.path, to)
    for part in (BINARIES, "lib", "python"):
        print(f"{part}: {bytes_of(folder / part) / 1e6:.1f} MB")
    archive = pack(folder)
    print(f"{folder}: {bytes_of(folder) / 1e6:.1f} MB; {archive}: {archive.stat().st_size / 1e6:.1f} MB")
