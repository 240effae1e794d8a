"""Whether a TCP port is free on the loopback, and who holds it when it is not."""

import contextlib
import os
import pathlib
import socket

from tools.launcher.failure import Failure

HOST = "127.0.0.1"
NEAR = 100


def is_free(port):
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except PermissionError as error:
            raise Failure(f"port {port} is not allowed", str(error), "ports below 1024 need root: take a higher one") from error
        except OSError:
            return False
    return True


def holder(port):
    """'nginx (pid 12)' for whoever listens on `port`, as far as /proc lets us look; '' otherwise."""
    inodes = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        with contextlib.suppress(OSError):
            for line in pathlib.Path(table).read_text().splitlines()[1:]:
                fields = line.split()
                if fields[3] == "0A" and int(fields[1].rpartition(":")[2], 16) == port:
                    inodes.add(f"socket:[{fields[9]}]")
    for folder in pathlib.Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        with contextlib.suppress(OSError):
            for handle in (folder / "fd").iterdir():
                with contextlib.suppress(OSError):
                    if os.readlink(handle) in inodes:
                        return f"{(folder / 'comm').read_text().strip()} (pid {folder.name})"
    return ""


def require_free(port):
    """Fails with who holds the port and a port that is free."""
    if is_free(port):
        return
    who = holder(port) or "another process"
    free = next((near for near in range(port + 1, min(port + NEAR, 65536)) if is_free(near)), None)
    fix = f"use a free one: --port {free}" if free else "stop that process, or use another --port"
    raise Failure(f"port {port} is taken", f"{who} listens on {HOST}:{port}", fix)
