"""nbdkit as the server: finding it, starting it with our plugin, and ending it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import vhdx2raw
from vhdx2raw.cli.commands.serve.address import Address
from vhdx2raw.cli.signals import defer, end_deferring
from vhdx2raw.errors import OutputError, ServerError

PROGRAM = "nbdkit"
PLUGIN = Path(vhdx2raw.__file__).with_name("integrations") / "nbdkit.py"
INSTALL = (
    "install nbdkit and its Python plugin: nbdkit-plugin-python in Debian and Ubuntu,"
    " nbdkit-python-plugin in Fedora"
)
OLDEST_PYTHON = 3, 10
PAUSE = 0.02
"""Seconds between two looks whether the server is ready."""
PATIENCE_WITH_COMMAND = 10
PATIENCE_WITH_SERVER = 1
"""Seconds that a program has to end after SIGTERM. nbdkit waits until its last client has gone, and
has nothing that could be lost."""


# -- nbdkit and its Python ----------------------------------------------------------------------


class Nbdkit(NamedTuple):
    """The installed program.

    Attributes:
        path: Where it is.
        python: The version of Python that its plugin has built in.
    """

    path: str
    python: tuple[int, ...]

    @property
    def has_this_python(self) -> bool:
        """Whether modules that were compiled for this Python can be loaded there."""
        return self.python[:2] == sys.version_info[:2]


def find_nbdkit() -> Nbdkit:
    """Return the nbdkit that is installed here.

    Raises:
        ServerError: There is none, it cannot run plugins in Python, or its Python is too old.
    """
    folders = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"))
    path = shutil.which(PROGRAM, path=folders)
    if path is None:
        raise ServerError("was not found", path=PROGRAM, remedy=INSTALL)
    asked = [path, "python", "--dump-plugin"]
    done = subprocess.run(asked, capture_output=True, text=True, check=False)  # noqa: S603
    known = dict(line.split("=", 1) for line in done.stdout.splitlines() if "=" in line)
    if done.returncode or "python_version" not in known:
        raise ServerError("has no plugin for Python", path=path, remedy=INSTALL)
    version = known["python_version"]
    python = tuple(int(part) for part in version.split(".")[:2])
    if python < OLDEST_PYTHON:
        oldest = ".".join(map(str, OLDEST_PYTHON))
        problem = f"has Python {version} built in, and {oldest} is needed"
        raise ServerError(problem, path=path, remedy="install an nbdkit of a newer system")
    return Nbdkit(path, python)


def plugin_path() -> str:
    """Return where our plugin lies.

    Raises:
        ServerError: In an archive, which nbdkit does not look into.
    """
    if not PLUGIN.is_file():
        remedy = "install vhdx2raw with pip to use nbdkit"
        raise ServerError("lies in an archive", path=str(PLUGIN), remedy=remedy)
    return str(PLUGIN)


def environment() -> dict[str, str]:
    """Return the variables by which nbdkit's Python finds this package and what it uses."""
    crc32c = find_spec("crc32c")
    folders = [str(Path(vhdx2raw.__file__).parents[1])]
    folders += [str(Path(crc32c.origin).parents[1])] if crc32c and crc32c.origin else []
    folders += [os.environ["PYTHONPATH"]] if os.environ.get("PYTHONPATH") else []
    # Names are handed over in UTF-8; a Python that is built in takes them as the locale has them.
    return {**os.environ, "PYTHONPATH": os.pathsep.join(folders), "LC_ALL": "C.UTF-8"}


# -- running it ---------------------------------------------------------------------------------


@contextmanager
def private_folder() -> Iterator[Path]:
    """Make a folder that nobody else can look into, and remove it with all that is in it."""
    defer()
    path = Path(tempfile.mkdtemp(prefix="vhdx2raw-"))
    try:
        end_deferring()
        yield path
    finally:
        defer()
        shutil.rmtree(path, ignore_errors=True)


@contextmanager
def serving(
    nbdkit: Nbdkit, address: Address, folder: Path, keys: Iterable[tuple[str, str]]
) -> Iterator[subprocess.Popen[bytes]]:
    """Serve a disk as long as the context lasts, from its beginning on.

    Args:
        nbdkit: The program.
        address: Where to listen.
        folder: A private one.
        keys: What the plugin is told.

    Raises:
        OutputError: The socket is there already.
        ServerError: The server cannot be started.
    """
    if address.socket and os.path.lexists(address.socket):
        remedy = "remove it, if no server uses it any more"
        raise OutputError("exists", path=str(address.socket), remedy=remedy)
    ready = folder / "nbdkit.pid"
    words = [nbdkit.path, "--exit-with-parent", "--readonly", "--pidfile", str(ready)]
    words += [*address.words, "python", f"script={plugin_path()}"]
    words += [f"{key}={_in_utf8(value)}" for key, value in keys]
    nothing = subprocess.DEVNULL
    # A session of its own: a key such as Ctrl-C is for this program, which then ends the server.
    how = {"stdin": nothing, "stdout": nothing, "start_new_session": True}
    with _started(words, PATIENCE_WITH_SERVER, env=environment(), **how) as server:
        while not ready.exists():
            if server.poll() is not None:
                raise ServerError("did not start; see above", path=nbdkit.path)
            time.sleep(PAUSE)
        try:
            yield server
        finally:
            defer()
            if address.socket:
                address.socket.unlink(missing_ok=True)


def wait_for(server: subprocess.Popen[bytes]) -> int:
    """Wait until the server is told to end by somebody else; return 0.

    Raises:
        ServerError: It has failed.
    """
    if code := server.wait():
        raise ServerError(f"has ended with exit code {code}", path=PROGRAM)
    return 0


def run_command(command: str, address: Address) -> int:
    """Let the shell run a command that knows the address; return its exit code as shells do."""
    variables = {"uri": address.uri, "nbd": address.uri, **address.variables}
    words = ["/bin/sh", "-c", command]
    with _started(words, PATIENCE_WITH_COMMAND, env={**os.environ, **variables}) as shell:
        code = shell.wait()
    return code if code >= 0 else 128 - code


@contextmanager
def _started(
    words: Sequence[str],
    patience: float,
    **options: Any,  # noqa: ANN401
) -> Iterator[subprocess.Popen[bytes]]:
    """Start a program, which is ended at the end of the context."""
    defer()
    process = subprocess.Popen(words, **options)  # noqa: S603 - what the user asked for
    try:
        end_deferring()
        yield process
    finally:
        defer()
        process.terminate()
        try:
            process.wait(patience)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _in_utf8(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        remedy = "rename it, or link to it by another name"
        raise ServerError("nbdkit takes only names in UTF-8", path=text, remedy=remedy) from None
    return text
