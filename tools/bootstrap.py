"""Make .venv in the checkout and install the pins of requirements/pins.txt into it.

    python3.11 tools/bootstrap.py            complete .venv; nothing to do takes a moment
    python3.11 tools/bootstrap.py --check    say what state it is in; exit with 1 if not ready

Standard library only. A run that was stopped anywhere is completed by the next one. mmcv is
published as source only: its wheel is built once, about 11 minutes on two cores, and kept in a
cache ($LUMBARFLOW_CACHE, else $XDG_CACHE_HOME/lumbarflow, else ~/.cache/lumbarflow) for other
checkouts. pip's own configuration on the machine decides where packages come from.
"""

import sys

# Before anything that an old Python cannot run or import.
if sys.version_info[:2] != (3, 11):
    sys.exit(
        "lumbarflow: error: Python 3.11 is needed and this is {}.{}: install it (Debian 12: "
        "python3.11 and python3.11-venv) and give its path, as in "
        "`make demo PYTHON=/path/to/python3.11`.".format(*sys.version_info)
    )

import argparse
import csv
import fcntl
import hashlib
import os
import platform
import re
import shutil
import signal
import subprocess
import sysconfig
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

VERSION = "1"  # raise it when an existing .venv needs this script to run again
ROOT = Path(__file__).resolve().parent.parent
PINS = ROOT / "requirements" / "pins.txt"
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
STAMP = VENV / "lumbarflow-setup"
STATE = ROOT / ".lumbarflow"
LOG = STATE / "setup.log"

# Bytes, measured on a fresh set-up: .venv when complete, the packages as downloaded (once in pip's
# cache, once in the temporary folder while they are installed), mmcv's objects while it builds.
VENV_SIZE = 8.1e9
DOWNLOAD_SIZE = 4.1e9
BUILD_SIZE = 0.5e9

SECONDS_BETWEEN_LINES = 20
BUILD_TOOLS = ("pip", "setuptools", "wheel", "ninja", "psutil")


class SetupError(Exception):
    """What stops the set-up, as one sentence that says what to do."""


def say(text: str) -> None:
    """Print one line at once, also where standard output is a file."""
    print(text, flush=True)


def read_pins() -> dict[str, str]:
    """Return the pinned version of every package, by its name in lower case."""
    lines = PINS.read_text(encoding="utf-8").splitlines()
    pairs = (line.strip().split("==") for line in lines if line and not line.startswith("#"))
    return {name.lower(): version for name, version in pairs}


# ---------------------------------------------------------------------------------------------
# What is there already


def stamp() -> str:
    """Return what a complete .venv is marked with: a digest of the pins and its place."""
    text = f"{VERSION}\n{VENV}\n{PINS.read_text(encoding='utf-8')}"
    return hashlib.sha256(text.encode()).hexdigest()


def is_ready() -> bool:
    """Say whether .venv holds the pins of this checkout."""
    return PYTHON.exists() and STAMP.is_file() and STAMP.read_text() == stamp()


def imports(*modules: str) -> bool:
    """Say whether the Python of .venv imports `modules`."""
    command = [PYTHON, "-c", "import " + ", ".join(modules)]
    return PYTHON.exists() and not subprocess.run(command, capture_output=True).returncode


def is_of_another_place(venv: Path) -> bool:
    """Say whether `venv` was made at another path (then copied) or by another Python version."""
    configuration = venv / "pyvenv.cfg"
    if not configuration.is_file():
        return False
    entries = dict(re.findall(r"(?m)^(\w[\w-]*) *= *(.*?) *$", configuration.read_text()))
    place = entries.get("command", "").rpartition(" -m venv ")[2]
    elsewhere = place and Path(place.split("--clear ")[-1]).resolve() != venv.resolve()
    return bool(elsewhere) or not entries.get("version", "3.11.").startswith("3.11.")


def incomplete_packages(venv: Path) -> Iterator[Path]:
    """Yield the metadata folder of each package of `venv` of which a file is missing.

    An installation that was killed leaves such packages, and pip takes them for installed.
    """
    for metadata in venv.glob("lib/python3.11/site-packages/*.dist-info"):
        record = metadata / "RECORD"
        if not (metadata / "METADATA").is_file() or not record.is_file():
            yield metadata
            continue
        with record.open(newline="", encoding="utf-8") as handle:
            paths = [row[0] for row in csv.reader(handle) if row]
        if not all((metadata.parent / p).exists() for p in paths if not p.endswith(".pyc")):
            yield metadata


def size_of(folder: Path) -> int:
    """Return the bytes on disk below `folder`."""
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            total += os.lstat(f"{parent}/{name}").st_blocks * 512
    return total


# ---------------------------------------------------------------------------------------------
# mmcv: which wheel, where, and what building it takes


def cuda_build() -> dict[str, str] | None:
    """Return what a build of mmcv with CUDA operators needs in its environment, None to do without.

    That takes a graphics card (or FORCE_CUDA=1, as on a login node, with TORCH_CUDA_ARCH_LIST) and
    nvcc of the major CUDA version that the pinned torch was built with.
    """
    architectures = os.environ.get("TORCH_CUDA_ARCH_LIST", "")
    if os.environ.get("FORCE_CUDA") != "1":
        query = ["nvidia-smi", "--query-gpu=compute_cap", "--format=csv,noheader"]
        cards = output_of(query)
        if not re.search(r"\d", cards):
            return None
        architectures = architectures or ";".join(sorted(set(cards.split())))
    home = os.environ.get("CUDA_HOME", "/usr/local/cuda")
    nvcc = shutil.which("nvcc", path=f"{home}/bin") or shutil.which("nvcc")
    release = re.search(r"release (\d+)\.(\d+)", output_of([nvcc, "--version"])) if nvcc else None
    major = next(n[-2:] for n in read_pins() if n.startswith("nvidia-cuda-runtime-cu"))
    if not release or release[1] != major:
        say(
            f"  a graphics card is here but no nvcc of CUDA {major}: the operators of Mask R-CNN "
            "and YOLACT are built for the CPU"
        )
        return None
    home = str(Path(nvcc).resolve().parent.parent)
    return {"FORCE_CUDA": "1", "CUDA_HOME": home, "TORCH_CUDA_ARCH_LIST": architectures}


def output_of(command: list[str]) -> str:
    """Return the standard output of `command`, empty where it fails or does not exist."""
    try:
        return subprocess.run(command, capture_output=True, text=True).stdout
    except OSError:
        return ""


def wheel_folder(pins: dict[str, str], cuda: dict[str, str] | None) -> Path:
    """Return the folder of the cache for the mmcv wheel that fits the pins and this machine."""
    cache = os.environ.get("LUMBARFLOW_CACHE")
    if not cache:
        parent = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        cache = Path(parent) / "lumbarflow"
    key = f"torch{pins['torch']}-cp311-mmcv{pins['mmcv']}-{platform.machine()}"
    if cuda:
        key += "-cuda" + re.sub(r"[^\w.]+", "_", cuda["TORCH_CUDA_ARCH_LIST"])
    return Path(cache).expanduser().absolute() / "wheels" / key


def cached_wheel(folder: Path) -> Path | None:
    """Return the wheel in `folder`, None where there is none."""
    return next(iter(sorted(folder.glob("mmcv-*.whl"))), None)


def compiler() -> str | None:
    """Return the C++ compiler: $CXX, c++ or g++, None where there is none."""
    names = [os.environ.get("CXX"), "c++", "g++"]
    return next((path for path in map(shutil.which, filter(None, names)) if path), None)


# ---------------------------------------------------------------------------------------------
# What can be known to be missing before anything is done


def check_machine() -> None:
    """Raise SetupError where the pins have no packages for this machine."""
    if (sys.platform, platform.machine()) != ("linux", "x86_64"):
        raise SetupError(
            f"the pinned packages are for Linux on x86-64 and this is {platform.system()} on "
            f"{platform.machine()}: use such a machine."
        )


def check_compiler() -> None:
    """Raise SetupError where mmcv cannot be compiled."""
    if not compiler():
        raise SetupError(
            "no C++ compiler was found (c++, g++ or $CXX), and mmcv must be compiled once: install "
            "one (Debian: apt-get install g++) and start the same command again."
        )
    if not Path(sysconfig.get_path("include"), "Python.h").is_file():
        raise SetupError(
            "Python's header files are missing, and mmcv must be compiled once: install them "
            "(Debian: apt-get install python3.11-dev) and start the same command again."
        )


def lacking(needs: list[tuple[Path, float]]) -> tuple[Path, float, float] | None:
    """The first disk without room for `needs` (bytes below a path): a folder of it, need, free."""
    disks: dict[int, tuple[Path, float]] = {}
    for path, size in needs:
        place = next(p for p in (path, *path.parents) if p.exists())
        first, total = disks.get(place.stat().st_dev, (place, 0.0))
        disks[place.stat().st_dev] = (first, total + size)
    for place, size in disks.values():
        free = shutil.disk_usage(place).free
        if free < size:
            return place, size, free
    return None


def check_disk(build: bool) -> None:
    """Raise SetupError where a disk lacks the room for what is still to be installed.

    Where only pip's cache of the downloads does not fit, pip does without (PIP_NO_CACHE_DIR).
    """
    missing = max(0.0, 1 - size_of(VENV) / VENV_SIZE)
    if missing < 0.05:  # a few updates
        missing = 0.0
    temporary = Path(tempfile.gettempdir())
    needs = [(VENV, VENV_SIZE * missing), (temporary, DOWNLOAD_SIZE * missing)]
    if build:
        needs.append((temporary, BUILD_SIZE))
    lack = lacking(needs)
    if lack:
        place, size, free = lack
        raise SetupError(
            f"the set-up needs about {size / 1e9:.1f} GB more on the disk of {place}, which "
            f"has {free / 1e9:.1f} GB free: free some space, or move the checkout ($TMPDIR for "
            "temporary files) to a larger disk, and start the same command again."
        )
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    cached = (cache, max(0.0, DOWNLOAD_SIZE * missing - size_of(cache / "pip")))
    if not os.environ.get("PIP_NO_CACHE_DIR") and lacking([*needs, cached]):
        say("  little room on the disk: the downloaded packages are not kept in pip's cache")
        os.environ["PIP_NO_CACHE_DIR"] = "1"


# ---------------------------------------------------------------------------------------------
# Long commands


def run(command: list, doing: str, environment: dict[str, str] | None = None) -> None:
    """Run `command`, its output to the log, with a line now and then on how far it is.

    Raises:
        SetupError: it failed; the sentence names the cause where the output shows it.
    """
    say(f"{doing} ...")
    start = time.monotonic()
    # pip leaves gigabytes of temporary files when it is killed: give it a folder that goes with us.
    with LOG.open("ab") as log, TemporaryDirectory(prefix="lumbarflow-") as temporary:
        offset = log.seek(0, os.SEEK_END)
        log.write(f"\n$ {' '.join(map(str, command))}\n".encode())
        log.flush()
        # A session of its own, so that stopping it stops its compilers too.
        process = subprocess.Popen(
            [str(part) for part in command],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            cwd=ROOT,
            env=child_environment() | {"TMPDIR": temporary} | (environment or {}),
            start_new_session=True,
        )
        try:
            while process.poll() is None:
                try:
                    process.wait(SECONDS_BETWEEN_LINES)
                except subprocess.TimeoutExpired:
                    say(f"  {doing}: {elapsed(start)}{progress(log_since(offset))}")
        finally:
            stop(process)
    if process.returncode:
        raise SetupError(explain(log_since(offset), doing))
    say(f"  done in {elapsed(start)}")


def stop(process: subprocess.Popen) -> None:
    """End the session of `process` if it still runs: by asking first, so that it can clean up."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
        if process.poll() is not None:
            return
        os.killpg(process.pid, number)
        with suppress(subprocess.TimeoutExpired):
            process.wait(10)


def child_environment() -> dict[str, str]:
    """Return the environment for commands of .venv: its programs first, nobody else's modules."""
    skipped = ("PYTHONPATH", "PYTHONHOME", "PIP_USER", "PIP_TARGET", "PIP_PREFIX")
    environment = {name: value for name, value in os.environ.items() if name not in skipped}
    path = f"{VENV / 'bin'}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    settings = {"PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_NO_INPUT": "1", "PIP_USER": "0"}
    return environment | settings | {"PATH": path, "VIRTUAL_ENV": str(VENV)}


def elapsed(start: float) -> str:
    """Return the time since `start` (time.monotonic) as `1 min 20 s`."""
    minutes, seconds = divmod(round(time.monotonic() - start), 60)
    return f"{minutes} min {seconds:02d} s" if minutes else f"{seconds} s"


def log_since(offset: int) -> str:
    """Return what was written to the log from byte `offset` on."""
    with LOG.open("rb") as handle:
        handle.seek(offset)
        return handle.read().decode(errors="replace")


def progress(output: str) -> str:
    """Return how far a compilation is, from ninja's `[12/123]`, empty where there is none."""
    steps = re.findall(r"(?m)^\s*\[(\d+)/(\d+)\] ", output)
    return ", file {} of {}".format(*steps[-1]) if steps else ""


def explain(output: str, doing: str) -> str:
    """Return one sentence on why a step failed, from its output."""
    again = "start the same command again; what is done is kept."
    if re.search(r"No space left on device|Disk quota exceeded|Errno 28\b|Errno 122\b", output):
        return f"the disk became full while {doing}: free some space and {again}"
    if re.search(
        r"connection broken by|NewConnectionError|ConnectTimeout|ReadTimeoutError|ProxyError|"
        r"Max retries exceeded|Temporary failure in name resolution|Network is unreachable|"
        r"ConnectionResetError|Connection aborted|RemoteDisconnected|IncompleteRead",
        output,
    ):
        return (
            f"the package index could not be reached while {doing}: check the network (proxy, "
            f"pip's configuration) and {again}"
        )
    missing = re.search(r"No matching distribution found for (\S+)", output)
    if missing:
        return (
            f"the package index that pip uses on this machine does not have {missing[1]}: point "
            f"pip's configuration at one that does and {again}"
        )
    if "ensurepip is not available" in output or "No module named ensurepip" in output:
        return f"Python's venv module is incomplete: install python3.11-venv and {again}"
    if re.search(r"Killed signal terminated program|Cannot allocate memory|MemoryError", output):
        return f"memory ran out while {doing}: set MAX_JOBS=1 in the environment and {again}"
    return f"{doing} failed, and {LOG} says why at its end: put that right and {again}"


# ---------------------------------------------------------------------------------------------
# The steps


def pip(*arguments, doing: str, environment: dict[str, str] | None = None) -> None:
    """Run pip of .venv."""
    run([PYTHON, "-m", "pip", *arguments], doing, environment)


def make_venv() -> None:
    """Make .venv where there is none that works, and drop what an interrupted run left in it."""
    create = [getattr(sys, "_base_executable", sys.executable), "-m", "venv"]
    if is_of_another_place(VENV):
        say("  .venv was made for another folder or another Python: it is made anew")
        run([*create, "--clear", VENV], "making .venv anew")
    elif not imports("pip._internal.cli.main"):
        run([*create, VENV], "making .venv")
        if not imports("pip._internal.cli.main"):
            run([*create, "--clear", VENV], "making .venv anew, as its pip is broken")
    for metadata in incomplete_packages(VENV):
        say(f"  {metadata.name.removesuffix('.dist-info')} is incomplete and is installed again")
        shutil.rmtree(metadata)


def install_pins(pins: dict[str, str]) -> None:
    """Install every pin except mmcv, the tools that build other packages first."""
    pip(
        "install", *(f"{n}=={pins[n]}" for n in BUILD_TOOLS), doing="installing pip and build tools"
    )
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as handle:
        handle.writelines(f"{n}=={v}\n" for n, v in pins.items() if n != "mmcv")
        handle.flush()
        # The list is complete: nothing to resolve.
        options = ["--no-deps", "--requirement", handle.name]
        pip("install", *options, doing=f"installing {len(pins) - 1} packages (PyTorch and others)")


def replace_opencv(pins: dict[str, str]) -> None:
    """Install OpenCV without windows where the machine lacks the libraries for them."""
    if imports("cv2"):
        return
    say("  OpenCV does not load here (libGL or the like is absent): its headless build replaces it")
    pip("uninstall", "--yes", "opencv-python", doing="removing opencv-python")
    version = pins["opencv-python"]
    headless = ["--no-deps", "--force-reinstall", f"opencv-python-headless=={version}"]
    pip("install", *headless, doing="installing opencv-python-headless")
    if not imports("cv2"):
        raise SetupError(
            "OpenCV does not load, not even its headless build: "
            "`.venv/bin/python -c 'import cv2'` says which library of the system is missing."
        )


def build_mmcv(version: str, folder: Path, cuda: dict[str, str] | None) -> Path:
    """Compile mmcv with its operators and put the wheel into the cache; return its path there."""
    folder.mkdir(parents=True, exist_ok=True)
    # A compiler takes up to 2 GB.
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    jobs = max(1, min(len(os.sched_getaffinity(0)), int(memory / 2e9)))
    environment = {"MMCV_WITH_OPS": "1", "CXX": compiler(), "MAX_JOBS": str(jobs)}
    if "MAX_JOBS" in os.environ:
        environment["MAX_JOBS"] = os.environ["MAX_JOBS"]
    # Without CUDA_VISIBLE_DEVICES a card without nvcc would make the build fail.
    environment |= cuda or {"FORCE_CUDA": "0", "CUDA_VISIBLE_DEVICES": ""}
    with TemporaryDirectory(dir=folder, prefix=".build-") as place:
        # pip keeps wheels that it built without regard to the torch they were built for: no cache.
        options = ["--verbose", "--no-cache-dir", "--no-build-isolation", "--no-deps"]
        pip(
            *("wheel", *options, "--wheel-dir", place, f"mmcv=={version}"),
            doing="compiling mmcv (once, about 11 minutes on two cores)",
            environment=environment,
        )
        built = cached_wheel(Path(place))
        return built.replace(folder / built.name)


def install_mmcv(pins: dict[str, str], folder: Path, cuda: dict[str, str] | None) -> None:
    """Install mmcv from the cache, compiled before if it is not there."""
    wheel = cached_wheel(folder) or build_mmcv(pins["mmcv"], folder, cuda)
    say(f"  mmcv's wheel: {wheel}")
    options = ["--no-deps", "--force-reinstall", "--no-index", "--find-links", wheel.parent]
    pip("install", *options, f"mmcv=={pins['mmcv']}", doing="installing mmcv")
    if not imports("mmcv._ext"):
        wheel.unlink()
        raise SetupError(
            f"mmcv's operators do not load, so the wheel {wheel} was removed: start the same "
            "command again to compile it anew."
        )


def set_up() -> None:
    """Do all steps, those that are done already in a moment."""
    say(f"Setting up .venv; the full output is in {LOG}")
    check_machine()
    pins = read_pins()
    cuda = cuda_build()
    folder = wheel_folder(pins, cuda)
    build = not cached_wheel(folder)
    if build:
        check_compiler()
    check_disk(build)
    LOG.write_bytes(b"")
    STAMP.unlink(missing_ok=True)
    make_venv()
    install_pins(pins)
    replace_opencv(pins)
    install_mmcv(pins, folder, cuda)
    STAMP.write_text(stamp())
    say(".venv is ready")


@contextmanager
def alone() -> Iterator[None]:
    """Hold the lock of the set-up: two at a time in one checkout would mix their installations."""
    STATE.mkdir(exist_ok=True)
    with (STATE / "setup.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("Another set-up of this checkout is running; waiting for it ...")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def report_state() -> bool:
    """Print the state of .venv and of what it takes to make it; return whether it is ready."""
    ready = is_ready()
    kind = "ready" if ready else "incomplete or of other pins" if VENV.exists() else "absent"
    wheel = cached_wheel(wheel_folder(read_pins(), cuda_build()))
    say(f".venv          {kind} ({VENV})")
    say(f"mmcv's wheel   {wheel or 'not in the cache: it will be compiled'}")
    say(f"C++ compiler   {compiler() or 'none'}")
    say(f"disk           {shutil.disk_usage(ROOT).free / 1e9:.1f} GB free")
    say(f"log            {LOG if LOG.exists() else 'none yet'}")
    return ready


def main() -> int:
    """Run as a program; return the exit status."""
    parser = argparse.ArgumentParser(description="Make .venv and install the pinned packages.")
    parser.add_argument("--check", action="store_true", help="only say what state .venv is in")
    arguments = parser.parse_args()

    def end(number, _frame):
        raise SystemExit(128 + number)

    signal.signal(signal.SIGTERM, end)
    try:
        if arguments.check:
            return 0 if report_state() else 1
        if not is_ready():
            with alone():
                if not is_ready():
                    set_up()
                    return 0
        say(".venv is ready")
        return 0
    except SetupError as error:
        print(f"lumbarflow: error: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(
            f"lumbarflow: error: the set-up cannot write or read {error.filename or ROOT} "
            f"({error.strerror}): put that right and start the same command again.",
            file=sys.stderr,
        )
        return 1
    except KeyboardInterrupt:
        print(
            "\nlumbarflow: interrupted: the same command goes on from here; what is done is kept.",
            file=sys.stderr,
        )
        return 130


if __name__ == "__main__":
    sys.exit(main())
