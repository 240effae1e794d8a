"""The launcher's verbs."""

import argparse
import errno
import fcntl
import json
import os
import signal
import sys
import time

from tools.launcher import build, cluster, doctor, drive, model, packages, paths, ports, processes, ucx
from tools.launcher.failure import Failure
from tools.launcher.progress import Progress

SUPERVISE_SECONDS = 0.2
DOWN_SECONDS = processes.STOP_GRACE_SECONDS + 5
EXIT_INTERRUPTED = 130


def _parser():
    parser = argparse.ArgumentParser(
        prog="./longhaul", description="Serve large language models with prefill and decode on separate workers."
    )
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="up | serve | test | status | down")

    def serving(verb):
        verb.add_argument("--port", type=_port, default=8000, help="HTTP port of the API (default 8000; 0: any free one)")
        verb.add_argument("--threads", type=_count, default=0, metavar="T",
                          help="threads of each worker (default: the cores shared out)")
        verb.add_argument("--backend", choices=("auto", "cpu", "cuda"), default="auto",
                          help="what computes (default auto: GPUs where they answer)")
        verb.add_argument("--detach", action="store_true", help="return once it serves and leave it running")
        verb.add_argument("-y", "--yes", action="store_true", help="install missing Debian packages without asking")

    up = verbs.add_parser("up", help="set up what is missing, start a cluster, drive it, report; until Ctrl-C")
    serving(up)
    up.add_argument("--once", action="store_true", help="stop after the drive")

    serve = verbs.add_parser("serve", help="serve a model: a .gguf file, a folder with safetensors, or a known name")
    serve.add_argument("model", metavar="MODEL")
    serving(serve)
    serve.add_argument("--standalone", action="store_true", help="all parts in one process")
    serve.add_argument("--prefill", type=_count, metavar="N", help="prefill workers (default 1)")
    serve.add_argument("--decode", type=_count, metavar="M", help="decode workers (default 1)")

    test = verbs.add_parser("test", help="build and pass the tests")
    test.add_argument("--only", choices=("unit", "contract", "sim", "tidy", "e2e", "sanitizers"), help="one suite")
    test.add_argument("-k", dest="pattern", default="", help="only tests whose name contains this")
    test.add_argument("-y", "--yes", action="store_true", help="install missing Debian packages without asking")

    status = verbs.add_parser("status", help="list what runs")
    status.add_argument("--json", action="store_true")

    down = verbs.add_parser("down", help="stop what runs")
    down.add_argument("--port", type=_port, help="only what serves on this port")
    return parser


def _port(text):
    value = int(text)
    if not 0 <= value <= 65535:
        raise argparse.ArgumentTypeError(f"{value} is no port: 0 to 65535")
    return value


def _count(text):
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} is too few: 1 or more")
    return value


class _SetupLock:
    """One set-up at a time in a checkout: two would write the same build folder."""

    def __init__(self, progress):
        self.progress = progress

    def __enter__(self):
        self.file = open(paths.make(paths.HOME) / "setup.lock", "w", encoding="utf-8")
        try:
            fcntl.flock(self.file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.progress.line(" waiting  another ./longhaul is setting up in this checkout")
            fcntl.flock(self.file, fcntl.LOCK_EX)

    def __exit__(self, *reason):
        self.file.close()


def _set_up(progress, yes, resolve_model, targets=build.SERVING):
    """doctor, packages, ucx, build, model. Each skips itself when there is nothing to do. (the machine, the model's path)"""
    with _SetupLock(progress):
        machine = doctor.check(progress)
        packages.ensure(progress, packages.BUILD, yes)
        ucx.ensure(progress, machine)
        build.run(progress, machine, targets)
        return machine, resolve_model(progress)


def _computing(machine, options):
    """The parts of a Shape that say what computes."""
    gpus = 0 if options.backend == "cpu" else machine.usable_gpus
    return {"gpus": gpus, "worker_flags": (f"--backend={options.backend}",)}


def _running_on(port):
    """What of ours serves on `port`, if anything; forgets instances that are long dead."""
    found = None
    for instance in processes.load_instances():
        if all(not process.alive() for process in instance.processes):
            instance.stop()
        elif port and instance.port == port:
            found = instance
    return found


def _why_not(found, shape):
    """Why a running instance is not what `shape` asks for; empty when it is."""
    other = cluster.differences(found.options, shape.options())
    if other:
        return f"it has {', '.join(other)}"
    if found.binaries != cluster.binaries_digest(shape.roles()):
        return "it runs other binaries"
    if found.dead():
        return f"{found.dead()[0].name} is dead"
    return "" if cluster.get(found.http, "/readyz")[0] == 200 else "it is not ready"


def _start_or_reuse(progress, shape):
    """(instance, True when this command started it)."""
    with progress.step("cluster" if not shape.standalone else "serve") as step:
        found = _running_on(shape.port)
        if found:
            why = _why_not(found, shape)
            if not why:
                step.skip(f"it already runs on port {found.port}, with the same binaries and options")
                return found, False
            if found.attended():
                raise Failure(
                    f"port {shape.port} is held by another ./longhaul (pid {found.launcher_pid})", why,
                    "stop that one (Ctrl-C, or ./longhaul down), or use another --port",
                )
            step.note(f"stopping what ran on port {shape.port}: {why}")
            _stop(found)
        instance = cluster.start(shape, step.update)
        names = " ".join(process.name for process in instance.processes if process.role != "router")
        step.done(f"{instance.processes[-1].name} :{instance.port}  {names}  ready")
    return instance, True


def _summary(progress, instance):
    address = f"http://{instance.http}"
    name = cluster.model_name(instance)
    body = json.dumps({"model": name, "messages": [{"role": "user", "content": "Hello!"}]})
    progress.line()
    progress.line(f" API       curl {address}/v1/chat/completions -H 'content-type: application/json' -d '{body}'")
    progress.line(f" metrics   {address}/metrics    logs {paths.LOGS.relative_to(paths.ROOT)}/{instance.name}/")
    progress.line(" next      ./longhaul status | ./longhaul down")


def _supervise(progress, instance, started):
    """Holds the foreground until Ctrl-C or a death. Stops what this command started; leaves alone what it found."""
    try:
        progress.line(f" running   {'Ctrl-C stops it' if started else 'it was there before: Ctrl-C leaves it running'}")
        while True:
            time.sleep(SUPERVISE_SECONDS)
            for process in instance.dead():
                raise process.died("while serving")
    except KeyboardInterrupt:
        progress.line()
    finally:
        if started:
            _stop(instance, progress)
    return 0


def _stop(instance, progress=None):
    killed = instance.stop()
    if progress:
        names = f"; killed after {processes.STOP_GRACE_SECONDS} s: {', '.join(killed)}" if killed else ""
        progress.line(f" stopped   {len(instance.processes)} processes{names}; the same command starts them again")


def _check_port_early(port):
    """Before the long set-up: nobody wants to learn after ten minutes that a port is taken."""
    if port and not _running_on(port):
        ports.require_free(port)


def up(progress, options):
    _check_port_early(options.port)
    machine, path = _set_up(progress, options.yes, model.fetch)
    computing = _computing(machine, options)
    wanted = drive.expected(progress, path, computing)
    shape = cluster.Shape(
        str(path), threads=options.threads, port=options.port, detached=options.detach, served_name=model.served_name(path),
        **computing,
    )
    instance, started = _start_or_reuse(progress, shape)
    try:
        drive.drive(progress, instance, wanted)
        if not options.once:
            _summary(progress, instance)
    except BaseException:
        if started:
            _stop(instance, progress)
        raise
    if options.once:
        if started:
            _stop(instance, progress)
        return 0
    return 0 if options.detach else _supervise(progress, instance, started)


def serve(progress, options):
    if options.standalone and (options.prefill or options.decode):
        raise Failure("--standalone and --prefill or --decode do not go together",
                      "a standalone is one process that does both", "leave one of them out", exit_code=2)
    _check_port_early(options.port)
    machine, path = _set_up(progress, options.yes, lambda screen: model.resolve(screen, options.model))
    shape = cluster.Shape(
        str(path), options.prefill or 1, options.decode or 1, options.threads, options.port, options.standalone,
        options.detach, model.served_name(path), **_computing(machine, options),
    )
    instance, started = _start_or_reuse(progress, shape)
    try:
        _summary(progress, instance)
    except BaseException:
        if started:
            _stop(instance, progress)
        raise
    return 0 if options.detach else _supervise(progress, instance, started)


def test(progress, options):
    from tools.launcher import testing

    with _SetupLock(progress):
        machine = doctor.check(progress)
        packages.ensure(progress, packages.BUILD | packages.TEST, options.yes)
        ucx.ensure(progress, machine)
        testing.set_up(progress, machine, options.only)
    return testing.run(progress, machine, options.only, options.pattern)


def status(progress, options):
    rows = []
    for instance in processes.load_instances():
        if all(not process.alive() for process in instance.processes):
            continue
        for process in instance.processes:
            rows.append({
                "role": process.role, "name": process.name, "pid": process.pid, "address": process.address,
                "http": process.http, "state": "running" if process.alive() else "dead", "port": instance.port,
                "model": instance.options["model"], "log": process.log,
            })
    if options.json:
        progress.line(json.dumps(rows, indent=1))
    elif not rows:
        progress.line("nothing runs; ./longhaul up starts a cluster")
    else:
        columns = ("role", "name", "pid", "address", "state")
        widths = {column: max(len(column), *(len(str(row[column])) for row in rows)) for column in columns}
        progress.line("  ".join(f"{column:<{widths[column]}}" for column in columns).rstrip())
        for row in rows:
            progress.line("  ".join(f"{row[column]!s:<{widths[column]}}" for column in columns).rstrip())
    return 1 if any(row["state"] == "dead" for row in rows) else 0


def down(progress, options):
    stopped = 0
    for instance in processes.load_instances():
        if options.port is not None and instance.port != options.port:
            continue
        live = sum(process.alive() for process in instance.processes)
        if instance.attended() and live:
            # Its own launcher stops it, and knows that this is no accident.
            os.kill(instance.launcher_pid, signal.SIGTERM)
            deadline = time.monotonic() + DOWN_SECONDS
            while instance.attended() and instance.file.exists() and time.monotonic() < deadline:
                time.sleep(processes.POLL_SECONDS)
        instance.stop()
        stopped += live
    progress.line(f"stopped {stopped} processes" if stopped else "nothing runs")
    return 0


def _interrupt(number, frame):
    raise KeyboardInterrupt


def main(arguments):
    options = _parser().parse_args(arguments)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    progress = Progress()
    verb = {"up": up, "serve": serve, "test": test, "status": status, "down": down}[options.verb]
    try:
        return verb(progress, options)
    except Failure as failure:
        sys.stdout.flush()
        print(failure, file=sys.stderr)
        return failure.exit_code
    except KeyboardInterrupt:
        progress.line()
        print("interrupted; run the same command again, it goes on where it was", file=sys.stderr)
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has left; there is nobody to tell.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_INTERRUPTED
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        print(paths.disk_full(paths.ROOT), file=sys.stderr)
        return 1
