"""Names that no file can have are refused as the kernel refuses them."""

from pathlib import Path

import pytest

from tests.support.files import names_in
from vhdx2raw.errors import OutputError
from vhdx2raw.output.sparse_file import SparseFileSink


@pytest.mark.slow
@pytest.mark.parametrize("replace", [False, True])
@pytest.mark.parametrize("there", ["nothing", "file", "folder"])
@pytest.mark.parametrize("ending", ["/", "/.", "/./", "/./.", "//.", "/..", "/../."])
def test_name_with_the_ending_of_a_folder_is_refused(
    tmp_path: Path, ending: str, there: str, *, replace: bool
) -> None:
    name = tmp_path / "name"
    if there == "file":
        name.write_bytes(b"old")
    elif there == "folder":
        name.mkdir()
    before = names_in(tmp_path)
    with pytest.raises(OutputError, match="is a directory, not a file to write"):
        SparseFileSink(f"{name}{ending}", 512, replace=replace)
    assert names_in(tmp_path) == before
    assert there != "file" or name.read_bytes() == b"old"


@pytest.mark.parametrize("name", ["", ".", "..", "./", "../"])
def test_a_folder_under_its_shortest_names_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(OutputError, match="is a directory, not a file to write"):
        SparseFileSink(name, 512)
    assert names_in(tmp_path) == []


@pytest.mark.parametrize("name", ["...", ".hidden", "a.", "./a", "folder/../a"])
def test_names_that_only_look_like_that_are_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    SparseFileSink(name, 512).commit()
    assert Path(name).stat().st_size == 512
