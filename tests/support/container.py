"""The steps of a Containerfile, done without a container engine: in a root of their own.

The base image is stood in for by the programs of this machine, read-only, and by the Python that
runs the tests, with nothing but pip installed. What a step writes is kept apart by an overlay, just
as it would be a layer. All of it is in a mount namespace, which takes the mounts with it.
"""

import os
import re
import subprocess
import sys
import sysconfig
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support.peers import needs_mounts, needs_program, skip_unless_ci

TIMEOUT = 120
PREFIX = Path(sys.base_prefix)
BIND = re.compile(r"--mount=type=bind,source=(\S+),target=(\S+)")
HOST_FOLDERS = ("usr", "etc")
HOST_LINKS = ("bin", "sbin", "lib", "lib64")
PASSED_ON = re.compile(r"PIP_|SSL_|https?_proxy", re.IGNORECASE)
"""What pip has to know of the network, which an engine would pass on as well."""


@dataclass(frozen=True)
class Step:
    """An instruction of a Containerfile."""

    name: str
    words: str


def read_steps(path: Path) -> list[Step]:
    """Give the instructions of a file in order."""
    text = re.sub(r"^#.*\n", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
    lines = text.replace("\\\n", " ").splitlines()
    pairs = (line.split(None, 1) for line in lines if line.strip())
    return [Step(name, " ".join(words.split())) for name, words in pairs]


@dataclass(frozen=True)
class Container:
    """A root, and the process whose namespace it is in.

    Attributes:
        root: The root directory, mounted in that namespace only.
        layer: What the steps have written below the prefix of Python.
        process: The number of a process in that namespace.
    """

    root: Path
    layer: Path
    process: int

    def mount(self, *words: str | Path) -> None:
        self.run_here("mount", *words)

    def bind(self, source: Path, target: str, *options: str) -> None:
        """Show a folder of this machine below the root."""
        place = self.root / target.lstrip("/")
        self.run_here("mkdir", "-p", place)
        self.mount("--bind", source, place)
        if options:
            self.mount("-o", f"remount,bind,{','.join(options)}", place)

    def build(self, step: Step, context: Path) -> None:
        """Do a RUN step, with the folders that it mounts."""
        binds = BIND.findall(step.words)
        for source, target in binds:
            self.bind(context / source, target, "ro")
        known = {name: value for name, value in os.environ.items() if PASSED_ON.match(name)}
        done = self.run(["sh", "-c", BIND.sub("", step.words)], known)
        assert done.returncode == 0, done.stderr
        for _, target in binds:
            self.run_here("umount", self.root / target.lstrip("/"))

    def files_of_layer(self) -> list[str]:
        """Give what the steps have written, by its path below the prefix of Python."""
        found = self.run_here("find", self.layer, "-type", "f", "-printf", "%P\n")
        return sorted(found.splitlines())

    def make_read_only(self) -> None:
        for place in (self.root, self.root / str(PREFIX).lstrip("/")):
            self.mount("-o", "remount,bind,ro", place)

    def run(
        self,
        command: Sequence[str],
        variables: Mapping[str, str],
        user: str | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run a program in the root; as another user without any privilege or network."""
        chroot = ["chroot", str(self.root)]
        if user:
            chroot = ["unshare", "--net", "chroot", f"--userspec={user}", str(self.root)]
            chroot += ["setpriv", "--no-new-privs"]
        path = f"PATH={PREFIX}/bin:/usr/bin:/bin"
        given = [path, "HOME=/", *(f"{name}={value}" for name, value in variables.items())]
        return self._enter(*chroot, "env", "-i", *given, *command)

    def run_here(self, *command: str | Path) -> str:
        """Run a program of this machine, which has to succeed, where the root is mounted."""
        done = self._enter(*command)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def _enter(self, *command: str | Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["nsenter", f"--mount=/proc/{self.process}/ns/mnt", *command],
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
            check=False,
        )


@contextmanager
def container_from_base(folder: Path) -> Iterator[Container]:
    """Give a root with nothing but a base image in it."""
    needs_mounts()
    for name in ("unshare", "nsenter", "setpriv", "chroot"):
        needs_program(name, path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
    if Path("/usr") == PREFIX:
        skip_unless_ci("the Python of the tests cannot be separated from this machine")
    for name in ("root", "layers"):
        (folder / name).mkdir()
    with subprocess.Popen(
        ["unshare", "--mount", "--propagation=private", "sh", "-c", "echo; exec sleep 1000"],
        stdout=subprocess.PIPE,
    ) as process:
        try:
            assert process.stdout
            process.stdout.readline()  # from now on it is in its namespace
            container = Container(folder / "root", folder / "layers/upper", process.pid)
            fill(container, folder / "layers")
            yield container
        finally:
            process.kill()


def fill(container: Container, layers: Path) -> None:
    """Make what is there in the base image: read-only but for Python, which has only pip."""
    python = container.root / str(PREFIX).lstrip("/")
    container.mount("-t", "tmpfs", "root", container.root)
    for name in HOST_FOLDERS:
        container.bind(Path("/", name), name, "ro")
    for name in HOST_LINKS:
        container.run_here("cp", "-a", Path("/", name), container.root)
    container.run_here("mkdir", "-p", container.root / "dev", container.root / "tmp", python)
    for name in ("null", "urandom"):
        container.run_here("touch", container.root / "dev" / name)
        container.mount("--bind", Path("/dev", name), container.root / "dev" / name)
    container.bind(Path("/proc"), "proc")
    # On tmpfs, since not every file system can hold what an overlay changes.
    container.mount("-t", "tmpfs", "layers", layers)
    packages = Path(sysconfig.get_path("purelib", vars={"base": str(PREFIX)}))
    clean = layers / "clean" / packages.relative_to(PREFIX)
    container.run_here("mkdir", "-p", clean, layers / "upper", layers / "work")
    container.run_here("cp", "-a", *packages.glob("pip*"), clean)
    hide = "import os, sys; os.setxattr(sys.argv[1], 'trusted.overlay.opaque', b'y')"
    container.run_here(sys.executable, "-c", hide, clean)
    lower = f"lowerdir={layers}/clean:{PREFIX},upperdir={layers}/upper,workdir={layers}/work"
    container.mount("-t", "overlay", "-o", lower, "python", python)
