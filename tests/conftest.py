"""What holds for every test, and the fixtures that tests of several packages use."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.support.bench import Bench
from tests.support.builder import GIB
from tests.support.cli import stored_zeros
from tests.support.devices import Devices, loop_devices

# What a shell starts in the background ignores SIGINT, and what nohup starts ignores SIGHUP; so
# would every program that a test starts in order to interrupt it.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)

# How long an example takes says something about the machine, and nothing about the package.
settings.register_profile(
    "without times",
    settings(),  # as hypothesis decides, here or on a server
    deadline=None,
    suppress_health_check=(*settings().suppress_health_check, HealthCheck.too_slow),
)
settings.load_profile("without times")


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    """Give a bench in a folder of its own."""
    bench = Bench(tmp_path)
    yield bench
    bench.close()


@pytest.fixture
def devices(tmp_path: Path) -> Iterator[Devices]:
    """Give what makes loop devices, which takes the superuser."""
    with loop_devices(tmp_path) as devices:
        yield devices


@pytest.fixture(scope="session")
def endless(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give an image that takes half a minute or more to convert, but hardly any space."""
    path = tmp_path_factory.mktemp("endless") / "disk.vhdx"
    stored_zeros(256 * GIB, b"data").write(path)
    return path
