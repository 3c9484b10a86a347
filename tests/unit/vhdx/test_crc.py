"""CRC-32C by the package crc32c and, where that is missing, in Python: the same numbers."""

from __future__ import annotations

import random
import subprocess
import sys
import textwrap
from collections.abc import Callable
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import SimpleNamespace

import crc32c as package
import pytest

from tests.support.builder import Block, ImageSpec, make_dirty
from tests.support.cli import run, small_disk
from tests.support.files import has_expected_bytes
from vhdx2raw.cli import console
from vhdx2raw.vhdx import crc, layout, log_entry

BOTH = pytest.mark.parametrize("function", [crc.crc32c, crc.slow_crc32c], ids=["best", "slow"])
WARNING = "vhdx2raw: without the package crc32c a large log takes long to read"
READ_COMMAND = bytes.fromhex(
    "01c00000 00000000 00000000 00000000 14000000 00000400"
    "00000014 00000018 28000000 00000000 02000000 00000000"
)
"""An iSCSI SCSI Read (10) Command PDU."""


# -- the numbers -----------------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", 0),
        (b"123456789", 0xE3069283),
        (bytes(32), 0x8A9136AA),
        (b"\xff" * 32, 0x62A8AB43),
        (bytes(range(32)), 0x46DD794E),
        (bytes(reversed(range(32))), 0x113FDB5C),
        (READ_COMMAND, 0xD9963A56),
    ],
)
def test_the_vectors_of_rfc_3720(function: crc.Crc, data: bytes, expected: int) -> None:
    """Appendix B.4, and the value that catalogues of checksums give for this one."""
    assert function(data) == expected


@BOTH
@pytest.mark.parametrize("length", [*range(20), 4096, 65537])
def test_checksum_in_pieces_equals_that_of_package(function: crc.Crc, length: int) -> None:
    data = random.Random(length).randbytes(length)
    expected = package.crc32c(data)
    assert function(data) == expected
    for cut in {0, 1, length // 3, length}:
        assert function(data[cut:], function(data[:cut])) == expected


# -- which of them is used -------------------------------------------------------------------


def find_all_but(*missing: str) -> Callable[..., ModuleSpec | None]:
    """Give a `PathFinder.find_spec` for which some modules are not installed."""
    real = PathFinder.find_spec

    def find(name: str, *rest: object) -> ModuleSpec | None:
        return None if name in missing else real(name, *rest)  # type: ignore[arg-type]

    return find


def test_extension_is_used_without_importing_package() -> None:
    code = "import sys, vhdx2raw.vhdx.crc as c; print(c.IS_SLOW, 'crc32c' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]


def test_extension_elsewhere_is_loaded_by_its_package(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(PathFinder, "find_spec", find_all_but("crc32c._crc32c"))
    assert crc._choose() is package.crc32c


def test_extension_without_function_is_left_to_package(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(crc, "module_from_spec", lambda _: SimpleNamespace())
    monkeypatch.setattr("importlib.machinery.ExtensionFileLoader.exec_module", lambda *_: None)
    assert crc._choose() is package.crc32c


def test_missing_package_is_replaced_by_python(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PathFinder, "find_spec", find_all_but("crc32c"))
    monkeypatch.setitem(sys.modules, "crc32c", None)
    assert crc._choose() is crc.slow_crc32c


# -- the program without the package ---------------------------------------------------------


@pytest.fixture
def dirty_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ImageSpec:
    """Write `disk.vhdx` here; one block of it is known to the log alone."""
    monkeypatch.chdir(tmp_path)
    before = small_disk()
    after = small_disk()
    after.blocks[1] = Block(content=b"new")
    spec = make_dirty(before, after)
    spec.write(Path("disk.vhdx"))
    return spec


@pytest.fixture
def _slow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layout, "crc32c", crc.slow_crc32c)
    monkeypatch.setattr(log_entry, "crc32c", crc.slow_crc32c)
    monkeypatch.setattr(crc, "IS_SLOW", True)


@pytest.mark.slow
def test_dirty_disk_is_converted_without_the_package(
    dirty_disk: ImageSpec,
) -> None:
    code = """
        import sys
        from importlib.machinery import PathFinder
        real = PathFinder.find_spec
        def find(name, *rest):
            return None if name.startswith("crc32c") else real(name, *rest)
        PathFinder.find_spec = find
        from vhdx2raw.vhdx import crc
        assert crc.IS_SLOW
        from vhdx2raw.cli import main
        sys.exit(main())
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), "disk.vhdx", "disk.img"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert has_expected_bytes(Path("disk.img"), dirty_disk)


@pytest.mark.slow
@pytest.mark.usefixtures("_slow", "dirty_disk")
@pytest.mark.parametrize(
    ("options", "is_terminal", "warns"),
    [
        ((), False, False),
        (("-v",), False, True),
        (("--verbose",), False, True),
        (("--no-sync",), True, True),
        (("-q",), True, False),
        (("--quiet",), True, False),
    ],
)
def test_missing_package_is_reported_once(
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    options: tuple[str, ...],
    is_terminal: bool,  # noqa: FBT001
    warns: bool,  # noqa: FBT001
) -> None:
    monkeypatch.setattr(console, "is_terminal", lambda _stream: is_terminal)
    outcome = run(capfd, *options, "disk.vhdx", "disk.img")
    assert outcome.exit_code == 0
    assert outcome.err_lines.count(WARNING) == warns


@pytest.mark.usefixtures("_slow")
def test_the_help_is_not_about_checksums(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without an argument the program shows its help, or completes a word for a shell."""
    monkeypatch.setattr(console, "is_terminal", lambda _stream: True)
    assert WARNING not in run(capfd).err_lines


@pytest.mark.usefixtures("dirty_disk")
def test_present_package_is_not_reported(
    capfd: pytest.CaptureFixture[str],
) -> None:
    outcome = run(capfd, "-v", "disk.vhdx", "disk.img")
    assert outcome.exit_code == 0
    assert WARNING not in outcome.err_lines
