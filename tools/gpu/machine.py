"""The machine that the checks run on: its GPUs, and its libraries that are not carried there."""

import ctypes
import os
import pathlib
import subprocess
import sys


def gpu_count():
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return 0
    count = ctypes.c_int()
    return count.value if driver.cuInit(0) == 0 and driver.cuDeviceGetCount(ctypes.byref(count)) == 0 else 0


def described():
    """Lines: its GPUs and how they reach each other."""
    lines = []
    for arguments in (["-L"], ["topo", "-m"]):
        try:
            lines += subprocess.run(["nvidia-smi", *arguments], capture_output=True, text=True, timeout=30,
                                    check=False).stdout.splitlines()
        except (OSError, subprocess.TimeoutExpired) as error:
            lines.append(f"nvidia-smi: {error}")
    return lines


def folder_of(library, package):
    """Where the loader or PyTorch's packages have a library; ends when it is nowhere."""
    for root in ("/usr/local", "/usr/lib", "/opt", *sys.path):
        if root and os.path.isdir(root):
            for found in pathlib.Path(root).rglob(library):
                return str(found.parent)
    sys.exit(f"error: no {library} on this machine\nwhy:   the CUDA backend is linked with it\n"
             f"fix:   install {package}, or PyTorch for CUDA 13")


def environment(root):
    """For what was staged in `root`."""
    theirs = (folder_of("libcublasLt.so.13", "the CUDA toolkit 13"), folder_of("libnccl.so.2", "libnccl2"))
    path = ":".join(filter(None, (str(root / "lib"), *theirs, os.environ.get("LD_LIBRARY_PATH"))))
    # NVLink multicast is for hosts that nobody else's GPUs are in.
    return {**os.environ, "LD_LIBRARY_PATH": path, "PYTHONPATH": f"{root}:{root / 'python'}", "PYTHONUNBUFFERED": "1",
            "NCCL_NVLS_ENABLE": "0"}
