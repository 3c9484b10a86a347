"""What a scheduler sends between processes: the functions, their results and their errors."""

import pickle
import subprocess
import sys
from pathlib import Path

import pytest

import vhdx2raw
from tests.support.chains import small_disk
from vhdx2raw import keywords
from vhdx2raw.errors import Vhdx2rawError


@pytest.mark.parametrize("name", ["open", "convert", "apply", "check", "compare", "digest"])
def test_functions_are_found_again(name: str) -> None:
    function = getattr(vhdx2raw, name)
    assert pickle.loads(pickle.dumps(function)) is function
    program = f"import pickle; print(pickle.loads({pickle.dumps(function)!r}).__name__)"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, check=True, text=True
    )
    assert done.stdout == f"{name}\n"


def test_nothing_else_is_found_there() -> None:
    with pytest.raises(
        AttributeError, match=r"module 'vhdx2raw\.keywords' has no attribute 'gone'"
    ):
        keywords.gone  # noqa: B018


def test_result_comes_back(tmp_path: Path) -> None:
    small_disk().write(tmp_path / "a.vhdx")
    result = vhdx2raw.convert(tmp_path / "a.vhdx", tmp_path / "a.img", hash_algorithm="md5")
    assert pickle.loads(pickle.dumps(result)) == result


@pytest.mark.parametrize("name", ["text.vhdx", "cut.vhdx"])
def test_error_comes_back_with_its_facts(tmp_path: Path, name: str) -> None:
    (tmp_path / "text.vhdx").write_bytes(b"no VHDX" * 100)
    small_disk(file_size=4 << 20).write(tmp_path / "cut.vhdx")
    with pytest.raises(Vhdx2rawError) as caught:
        vhdx2raw.convert(tmp_path / name, tmp_path / "a.img")
    error, again = caught.value, pickle.loads(pickle.dumps(caught.value))
    assert type(again) is type(error)
    assert (str(again), again.hint, vars(again)) == (str(error), error.hint, vars(error))


def test_error_about_the_output_comes_back(tmp_path: Path) -> None:
    small_disk().write(tmp_path / "a.vhdx")
    (tmp_path / "a.img").touch()
    with pytest.raises(vhdx2raw.OutputError) as caught:
        vhdx2raw.convert(tmp_path / "a.vhdx", tmp_path / "a.img")
    again = pickle.loads(pickle.dumps(caught.value))
    assert (str(again), vars(again)) == (str(caught.value), vars(caught.value))
