"""`vhdx2raw serve`: where it listens, what it runs, how it ends, and what it cannot begin."""

import os
import re
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import vhdx2raw
from tests.support.builder import MIB, ImageSpec, child_of
from tests.support.cli import Outcome, run, run_program, small_disk, start_program, unusual_disk
from tests.support.docs import MAKERS
from tests.support.files import names_in, write_files
from tests.support.nbd import needs_server, server_of
from tests.support.peers import needs_module, needs_program
from tests.support.signals import SIGNAL_MESSAGES, SIGNALS, do_nothing, inherited
from vhdx2raw.cli.commands.serve import server
from vhdx2raw.cli.commands.serve.address import tcp_address, unix_address
from vhdx2raw.cli.commands.serve.server import plugin_path
from vhdx2raw.errors import ServerError

pytestmark = pytest.mark.slow

Capture = pytest.CaptureFixture[str]
MonkeyPatch = pytest.MonkeyPatch
PACKAGE = Path(vhdx2raw.__file__).parent
PLUGIN = PACKAGE / "integrations/nbdkit.py"
DUMP = 'case "$*" in *--dump-plugin*) printf "%s\\n" {}; exit 0;; esac\n'
LISTENING = "0A"
LOOPBACK, ANY = "0100007F", "00000000"


@pytest.fixture(autouse=True)
def private_folders(tmp_path: Path, monkeypatch: MonkeyPatch) -> Iterator[Path]:
    """Let private folders be made where they are seen; nothing may be left of them."""
    folder = Path(tempfile.mkdtemp(prefix="t-"))  # the path of a socket must be short
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    yield folder
    left = names_in(folder)
    shutil.rmtree(folder)
    assert left == []


@pytest.fixture
def image(tmp_path: Path) -> Path:
    return write_files(tmp_path, {"disk.vhdx": small_disk()})


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: MonkeyPatch) -> Path:
    """Give a folder whose programs are found before all others."""
    folder = tmp_path / "programs"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return folder


def write_nbdkit(folder: Path, *lines: str, version: str = "3.11.2") -> None:
    """Write a program that says that it is nbdkit, and then does this."""
    script = folder / "nbdkit"
    script.write_text(
        "\n".join(["#!/bin/sh", DUMP.format(f"python_version={version}"), *lines, ""])
    )
    script.chmod(0o755)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port: int = listening.getsockname()[1]
        return port


# -- where it listens ---------------------------------------------------------------------------


def test_by_default_it_listens_in_a_private_folder(image: Path, private_folders: Path) -> None:
    with server_of(image) as running:
        assert re.fullmatch(r"nbd\+unix:///\?socket=/\S+/vhdx2raw-\w+/socket", running.uri)
        assert running.folder.parent == private_folders
        assert stat.S_IMODE(running.folder.stat().st_mode) == 0o700
        assert names_in(running.folder) == ["nbdkit.pid", "socket"]
        assert running.end() == (143, SIGNAL_MESSAGES[signal.SIGTERM])


def test_a_socket_of_ones_own_is_removed_at_the_end(
    tmp_path: Path, image: Path, monkeypatch: MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with server_of("--socket", "a b?.sock", image) as running:
        assert running.uri.endswith("/a%20b%3F.sock")
        assert stat.S_ISSOCK((tmp_path / "a b?.sock").stat().st_mode)
        running.end()
    assert names_in(tmp_path) == ["disk.vhdx"]


@pytest.mark.parametrize(
    ("options", "host", "address"),
    [([], "127.0.0.1", LOOPBACK), (["--listen", "0.0.0.0"], "localhost", ANY)],
)
def test_a_port_is_for_this_machine_unless_told_otherwise(
    image: Path, options: list[str], host: str, address: str
) -> None:
    port = free_port()
    with server_of("--port", str(port), *options, image) as running:
        assert running.uri == f"nbd://{host}:{port}"
        lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()]
        ours = f":{port:04X}"
        listening = [row[1] for row in lines if row[1].endswith(ours) and row[3] == LISTENING]
        assert listening == [address + ours]
        running.end()


def test_an_address_of_ipv6_stands_in_brackets() -> None:
    assert tcp_address("::1", 10809).uri == "nbd://[::1]:10809"
    assert tcp_address("::", 10809).uri == "nbd://localhost:10809"


# -- what it runs -------------------------------------------------------------------------------


@pytest.mark.parametrize(("command", "code"), [("exit 0", 0), ("exit 5", 5), ("kill $$", 143)])
def test_exit_code_is_that_of_the_command(
    capfd: Capture, image: Path, command: str, code: int
) -> None:
    needs_server()
    assert run(capfd, "serve", image, "--run", command) == Outcome(code, "", "")


def test_a_command_knows_where_the_server_is(capfd: Capture, image: Path) -> None:
    needs_server()
    needs_program("nbdinfo")
    command = 'echo "$uri $nbd $unixsocket $port"; nbdinfo --size "$uri"'
    first, size = run(capfd, "serve", image, "--run", command).out.splitlines()
    uri, same, path = first.split()
    assert uri == same == f"nbd+unix:///?socket={path}"
    assert size == str(small_disk().virtual_disk_size)
    port = str(free_port())
    first, size = run(capfd, "serve", image, "--port", port, "--run", command).out.splitlines()
    assert first.split() == [f"nbd://127.0.0.1:{port}"] * 2 + [port]
    assert size == str(small_disk().virtual_disk_size)


def test_plugin_path_is_printed_without_an_image(capfd: Capture) -> None:
    assert run(capfd, "serve", "--plugin-path") == Outcome(0, f"{PLUGIN}\n", "")


def test_a_plugin_in_an_archive_is_refused(monkeypatch: MonkeyPatch) -> None:
    monkeypatch.setattr(server, "PLUGIN", Path("/x/vhdx2raw.pyz/vhdx2raw/integrations/nbdkit.py"))
    with pytest.raises(ServerError, match=r"vhdx2raw\.pyz/.*nbdkit\.py: lies in an archive"):
        plugin_path()


@pytest.mark.parametrize("locale", ["C", "C.UTF-8"])
def test_a_name_in_utf_8_is_served_in_every_locale(tmp_path: Path, locale: str) -> None:
    needs_server()
    base, name = ImageSpec(MIB, MIB), "Größe=1 .avhdx"
    child = child_of(base, "Вася.vhdx")
    path = write_files(tmp_path, {name: child, "Вася.vhdx": base})
    env = {**os.environ, "LC_ALL": locale}
    assert run_program("serve", path, "--run", "true", env=env) == Outcome(0, "", "")


def test_a_name_that_is_no_utf_8_is_refused(capfd: Capture, tmp_path: Path) -> None:
    needs_server()
    small_disk().write(tmp_path / os.fsdecode(b"\xff.vhdx"))
    outcome = run(capfd, "serve", tmp_path / os.fsdecode(b"\xff.vhdx"), "--run", "true")
    assert outcome.exit_code == 8
    assert "nbdkit takes only names in UTF-8" in outcome.err


def test_the_other_python_finds_the_package_and_what_it_uses() -> None:
    needs_module("crc32c")
    words = [sys.executable, "-S", "-c", "import crc32c, vhdx2raw; print(vhdx2raw.__file__)"]
    environment = server.environment()
    done = subprocess.run(words, env=environment, cwd="/", check=True, capture_output=True)
    assert done.stdout.decode().strip() == str(PACKAGE / "__init__.py")


# -- warnings -----------------------------------------------------------------------------------


def test_warnings_of_the_image_are_printed_once(capfd: Capture, tmp_path: Path) -> None:
    needs_server()
    path = write_files(tmp_path, {"disk.vhdx": unusual_disk()})
    outcome = run(capfd, "serve", path, "--run", "true")
    assert outcome.exit_code == 0
    assert len(outcome.err_lines) == 2
    assert all(": warning: " in line for line in outcome.err_lines)
    assert run(capfd, "serve", "-q", path, "--run", "true") == Outcome(0, "", "")


def test_another_python_is_a_warning(
    capfd: Capture, image: Path, programs: Path, monkeypatch: MonkeyPatch
) -> None:
    needs_server()
    real = shutil.which("nbdkit", path=os.environ["PATH"].partition(os.pathsep)[2])
    write_nbdkit(programs, f'exec {real} "$@"', version="3.99.1")
    outcome = run(capfd, "serve", "-v", image, "--run", "true")
    assert outcome.exit_code == 0
    assert re.match(
        rf"vhdx2raw: {programs}/nbdkit: warning: has Python 3\.99 built in, this is 3\.\d+: ",
        outcome.err,
    )
    assert run(capfd, "serve", image, "--run", "true") == Outcome(0, "", "")


# -- what cannot begin --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--socket", "s", "--port", "1"], "--socket and --port contradict each other"),
        (["--listen", "::1"], "--listen is about TCP; give --port as well"),
        (["--port", "0"], "0 is not in the range 1<=x<=65535"),
        (["--region", "bat=0"], "--region is about a damaged disk"),
    ],
)
def test_wrong_usage_is_refused(
    capfd: Capture, image: Path, words: list[str], message: str
) -> None:
    outcome = run(capfd, "serve", image, *words)
    assert outcome.exit_code == 2
    assert message in outcome.err


@pytest.mark.parametrize(
    ("name", "code"),
    [("archive.zip", 4), ("broken.vhdx", 5), ("damaged.vhdx", 5), ("alone.avhdx", 6), ("no", 8)],
)
def test_an_image_that_cannot_be_read_starts_no_server(
    capfd: Capture, tmp_path: Path, programs: Path, name: str, code: int
) -> None:
    write_nbdkit(programs, f"touch {tmp_path}/started")
    if name in MAKERS:
        MAKERS[name](tmp_path / name)
    outcome = run(capfd, "serve", tmp_path / name)
    assert (outcome.exit_code, outcome.out) == (code, "")
    assert outcome.err.startswith(f"vhdx2raw: {tmp_path / name}: ")
    assert not (tmp_path / "started").exists()


def test_without_nbdkit_what_to_install_is_named(
    capfd: Capture, image: Path, monkeypatch: MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "PROGRAM", "nbdkit-that-is-not-here")
    outcome = run(capfd, "serve", image)
    assert outcome.exit_code == 8
    first, second = outcome.err_lines
    assert first == "vhdx2raw: nbdkit-that-is-not-here: was not found"
    assert "nbdkit-plugin-python in Debian" in second


def test_nbdkit_without_python_is_refused(capfd: Capture, image: Path, programs: Path) -> None:
    write_nbdkit(programs)
    script = programs / "nbdkit"
    script.write_text("#!/bin/sh\necho 'nbdkit: error: cannot open plugin' >&2; exit 1\n")
    outcome = run(capfd, "serve", image)
    assert outcome.exit_code == 8
    assert outcome.err_lines[0] == f"vhdx2raw: {script}: has no plugin for Python"
    assert "nbdkit-plugin-python" in outcome.err_lines[1]


def test_a_python_that_is_too_old_is_refused(capfd: Capture, image: Path, programs: Path) -> None:
    write_nbdkit(programs, version="3.9.2")
    outcome = run(capfd, "serve", image)
    assert outcome.exit_code == 8
    problem = "has Python 3.9.2 built in, and 3.10 is needed"
    assert outcome.err_lines[0] == f"vhdx2raw: {programs}/nbdkit: {problem}"


def test_a_server_that_does_not_start_is_reported(
    capfd: Capture, image: Path, programs: Path
) -> None:
    write_nbdkit(programs, "echo 'nbdkit: no such luck' >&2; exit 1")
    outcome = run(capfd, "serve", "-q", image)
    assert (outcome.exit_code, outcome.out) == (8, "")
    assert outcome.err_lines == [
        "nbdkit: no such luck",
        f"vhdx2raw: {programs}/nbdkit: did not start; see above",
    ]


def test_a_port_that_is_taken_is_refused(capfd: Capture, image: Path) -> None:
    needs_server()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        outcome = run(capfd, "serve", image, "--port", str(taken.getsockname()[1]))
    assert outcome.exit_code == 8
    assert outcome.err_lines[0] == "nbdkit: unable to bind to any TCP/IP sockets"
    assert outcome.err_lines[-1].endswith("nbdkit: did not start; see above")


def test_a_name_that_is_taken_is_left_alone(capfd: Capture, tmp_path: Path, image: Path) -> None:
    needs_server()
    taken = tmp_path / "taken"
    taken.write_text("mine")
    outcome = run(capfd, "serve", image, "--socket", taken)
    assert outcome.exit_code == 7
    assert outcome.err_lines[0] == f"vhdx2raw: {taken}: exists"
    assert taken.read_text() == "mine"


def test_a_name_that_is_too_long_is_refused(capfd: Capture, image: Path) -> None:
    needs_server()
    outcome = run(capfd, "serve", image, "--socket", f"/tmp/{'ä' * 52}")
    assert outcome.exit_code == 7
    assert "has 109 bytes, and the path of a socket at most 107" in outcome.err
    assert outcome.err_lines[1] == "vhdx2raw: hint: use a shorter one: --socket"
    assert unix_address(f"/tmp/{'ä' * 51}").socket


# -- how it ends --------------------------------------------------------------------------------


@pytest.mark.parametrize("number", SIGNALS, ids=lambda number: number.name)
def test_a_signal_ends_it_and_leaves_nothing(image: Path, number: signal.Signals) -> None:
    with inherited(do_nothing), server_of(image) as running:
        nbdkit = running.nbdkit
        running.process.send_signal(number)
        assert running.wait() == (128 + number, SIGNAL_MESSAGES[number])
    assert not Path(f"/proc/{nbdkit}").exists()


def test_a_signal_before_it_is_ready_leaves_nothing(
    tmp_path: Path, image: Path, programs: Path
) -> None:
    write_nbdkit(programs, f"echo $$ > {tmp_path}/number; exec sleep 60")
    with start_program("serve", image) as process:
        number = wait_for_text(tmp_path / "number")
        process.terminate()
        assert process.communicate(timeout=60)[1].decode() == SIGNAL_MESSAGES[signal.SIGTERM]
    assert process.returncode == 143
    assert not Path(f"/proc/{number}").exists()


def wait_for_text(path: Path) -> str:
    """Give what a program writes to a file, as soon as it does."""
    while not (path.exists() and (text := path.read_text())):
        time.sleep(0.02)
    return text.strip()


def test_a_signal_ends_the_command_as_well(tmp_path: Path, image: Path) -> None:
    needs_server()
    command = f"echo $$ > {tmp_path}/number; exec sleep 60"
    with start_program("serve", image, "--run", command) as process:
        number = wait_for_text(tmp_path / "number")
        process.terminate()
        assert process.communicate(timeout=60)[1].decode() == SIGNAL_MESSAGES[signal.SIGTERM]
    assert process.returncode == 143
    assert not Path(f"/proc/{number}").exists()


def test_a_server_that_fails_later_is_reported(capfd: Capture, image: Path, programs: Path) -> None:
    write_nbdkit(programs, 'touch "$4"; sleep 0.2; exit 3')
    outcome = run(capfd, "serve", "-q", image)
    assert outcome.exit_code == 8
    assert outcome.err_lines == ["vhdx2raw: nbdkit: has ended with exit code 3"]


def test_a_server_that_was_told_to_end_by_others_has_done_its_work(image: Path) -> None:
    with server_of(image) as running:
        os.kill(running.nbdkit, signal.SIGTERM)
        assert running.wait() == (0, "")


def test_a_server_that_does_not_end_is_killed(capfd: Capture, image: Path, programs: Path) -> None:
    write_nbdkit(
        programs,
        "trap '' TERM",
        'touch "$4"',
        f"echo $$ > {programs}/number",
        "sleep 9 &",
        "wait; wait",
    )
    assert run(capfd, "serve", "-q", image, "--run", "sleep 0.2").exit_code == 0
    assert not Path(f"/proc/{(programs / 'number').read_text().strip()}").exists()
