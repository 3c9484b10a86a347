"""A conversion that goes on where an earlier run has ended, or begins anew and says why."""

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.builder import MIB, Block, ImageSpec, child_of
from tests.support.files import names_in
from vhdx2raw import ConversionResult, NullSink, OutputError, Vhdx2rawError, convert
from vhdx2raw.operations import resume, state
from vhdx2raw.output.resumable_file import ResumableFileSink
from vhdx2raw.output.sparse_file import SparseFileSink

DISK = ImageSpec(12 * MIB, MIB, {index: Block() for index in range(12) if index != 5})
KEPT = [".x.img.resume.json", ".x.img.resume.part"]


class Place:
    """A folder with a disk, whose conversion fails at some write."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self.source, self.image = folder, folder / "disk.vhdx", folder / "x.img"
        self._monkeypatch = monkeypatch
        DISK.write(self.source)

    def convert(self, **options: Any) -> ConversionResult:  # noqa: ANN401
        return convert(self.source, self.image, resume=True, workers=1, **options)

    def fail(self, at: int = 6 * MIB, **options: Any) -> None:  # noqa: ANN401
        """Let the network fail when a place of the disk is reached."""

        def write(sink: SparseFileSink, virtual_offset: int, data: memoryview) -> None:
            if virtual_offset >= at:
                raise OSError(5, "the share is lost")
            real(sink, virtual_offset, data)

        real = SparseFileSink.write
        with self._monkeypatch.context() as patch:
            patch.setattr(ResumableFileSink, "write", write)
            with pytest.raises(OSError, match="the share is lost"):
                self.convert(**options)

    def assert_complete(self, *others: str) -> None:
        is_right = self.image.read_bytes() == DISK.expected_disk(0, DISK.virtual_disk_size)
        assert is_right
        assert names_in(self.folder) == sorted(["disk.vhdx", "x.img", *others])


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    return Place(tmp_path, monkeypatch)


def test_run_that_does_not_fail_leaves_nothing_else(place: Place) -> None:
    result = place.convert()
    assert (result.resumed_bytes, result.begun_anew) == (0, "")
    place.assert_complete()


@pytest.mark.slow
@pytest.mark.parametrize("options", [{}, {"verify": True}, {"sparse_size": 0}], ids=str)
def test_next_run_goes_on(place: Place, options: dict[str, Any]) -> None:
    place.fail(**options)
    assert names_in(place.folder) == [*KEPT, "disk.vhdx"]
    result = place.convert(**options)
    assert (result.resumed_bytes, result.begun_anew) == (6 * MIB, "")
    assert result.data_bytes == 6 * MIB
    place.assert_complete()


def test_several_failures(place: Place) -> None:
    for at in (2 * MIB, 3 * MIB, 9 * MIB):
        place.fail(at)
    assert place.convert().resumed_bytes == 9 * MIB
    place.assert_complete()


def test_digest_counts_what_was_there(place: Place) -> None:
    place.fail(hash_algorithm="sha256")
    result = place.convert(hash_algorithm="sha256")
    assert result.resumed_bytes == 6 * MIB
    assert result.digest == hashlib.sha256(DISK.expected_disk(0, 12 * MIB)).hexdigest()


def test_what_was_not_certain_is_thrown_away(place: Place) -> None:
    place.fail()
    with (place.folder / KEPT[1]).open("r+b") as file:
        file.seek(6 * MIB)
        file.write(b"old" * MIB)  # also where the disk has a hole
    place.convert()
    place.assert_complete()


def test_failure_without_resume_leaves_nothing(place: Place) -> None:
    def fail(_sink: object, _offset: int, _data: memoryview) -> None:
        raise OSError(5, "failed")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SparseFileSink, "write", fail)
        with pytest.raises(OSError, match="failed"):
            convert(place.source, place.image)
    assert names_in(place.folder) == ["disk.vhdx"]


def _touch(place: Place) -> None:
    place.source.touch()


def _lose_journal(place: Place) -> None:
    (place.folder / KEPT[0]).unlink()


def _cut_journal(place: Place) -> None:
    os.truncate(place.folder / KEPT[0], 20)


def _edit_journal(**facts: object) -> Callable[[Place], None]:
    def edit(place: Place) -> None:
        path = place.folder / KEPT[0]
        path.write_text(json.dumps(json.loads(path.read_text()) | facts))

    return edit


@pytest.mark.slow
@pytest.mark.parametrize(
    ("event", "reason"),
    [
        (_touch, "the source, or a parent of it, is not as it was"),
        (_lose_journal, "nothing says how far"),
        (_cut_journal, "nothing says how far"),
        (_edit_journal(format=2), "another version of this program"),
        (_edit_journal(done=-1), "another version of this program"),
        (_edit_journal(size=5), "the disk has another size now"),
    ],
)
def test_begins_anew_and_says_why(
    place: Place, event: Callable[[Place], None], reason: str
) -> None:
    place.fail()
    event(place)
    result = place.convert()
    assert result.resumed_bytes == 0
    assert reason in result.begun_anew
    place.assert_complete()


@pytest.mark.slow
def test_other_options_begin_anew(place: Place) -> None:
    place.fail()
    assert "other options" in place.convert(sparse_size=0).begun_anew
    place.assert_complete()


def test_parent_that_was_touched_begins_anew(place: Place) -> None:
    parent = place.folder / "base.vhdx"
    place.source.rename(parent)
    child = child_of(DISK, ".\\base.vhdx", blocks={1: Block(content=b"child")})
    child.write(place.source)
    place.fail()
    parent.touch()
    assert "a parent of it" in place.convert().begun_anew
    is_right = place.image.read_bytes() == child.expected_disk(0, 12 * MIB)
    assert is_right


def test_source_that_changes_meanwhile_leaves_nothing(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    def flush(sink: SparseFileSink) -> None:
        real(sink)
        with place.source.open("ab") as file:
            file.write(b"more")

    real = SparseFileSink.flush
    monkeypatch.setattr(ResumableFileSink, "flush", flush)
    with pytest.raises(Vhdx2rawError, match="was changed while it was read"):
        place.convert()
    assert names_in(place.folder) == ["disk.vhdx"]


def test_failed_verification_leaves_nothing(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    def write(sink: SparseFileSink, virtual_offset: int, data: memoryview) -> None:
        if virtual_offset:
            real(sink, virtual_offset, data)

    real = SparseFileSink.write
    monkeypatch.setattr(ResumableFileSink, "write", write)
    with pytest.raises(OutputError, match="is not what was written"):
        place.convert(verify=True)
    assert names_in(place.folder) == ["disk.vhdx"]


def test_nothing_is_certain_after_a_failed_flush(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel reports a lost page once; a second fsync would succeed."""
    calls = []

    def fsync(descriptor: int) -> None:
        if Path(f"/proc/self/fd/{descriptor}").readlink().name == KEPT[1]:
            calls.append(descriptor)
            if len(calls) == 1:
                raise OSError(5, "lost pages")
        real(descriptor)

    real = os.fsync
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fsync)
        with pytest.raises(OSError, match="lost pages"):
            place.convert()
    assert names_in(place.folder) == [KEPT[1], "disk.vhdx"]
    assert "nothing says how far" in place.convert().begun_anew
    place.assert_complete()


def test_journal_is_renewed_on_the_way(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    marks = []

    def note(path: str, facts: dict[str, Any]) -> None:
        marks.append(facts["done"])
        real(path, facts)

    real = state.replace_json
    monkeypatch.setattr(resume, "RENEW_SECONDS", 0)
    monkeypatch.setattr(resume, "replace_json", note)
    place.convert()
    assert marks[-1] == 12 * MIB
    assert marks == sorted(marks)
    place.assert_complete()


def test_output_that_appears_meanwhile_keeps_what_was_written(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    def flush(sink: SparseFileSink) -> None:
        real(sink)
        place.image.write_bytes(b"precious")

    real = SparseFileSink.flush
    with monkeypatch.context() as patch:
        patch.setattr(SparseFileSink, "flush", flush)
        with pytest.raises(OutputError, match="exists already"):
            place.convert()
    place.image.unlink()
    place.convert()
    place.assert_complete()


def test_output_that_exists_is_refused_and_what_was_kept_stays(place: Place) -> None:
    place.fail()
    place.image.write_bytes(b"precious")
    with pytest.raises(OutputError, match="exists already"):
        place.convert()
    assert names_in(place.folder) == [*KEPT, "disk.vhdx", "x.img"]
    assert place.convert(force=True).resumed_bytes == 6 * MIB
    place.assert_complete()


def test_two_runs_at_once(place: Place) -> None:
    sink = ResumableFileSink(place.image, 12 * MIB)
    with pytest.raises(OutputError, match="is being changed by another run"):
        place.convert()
    sink.discard()
    place.convert()
    place.assert_complete()


def test_link_in_the_place_of_the_temporary_file_is_not_followed(place: Place) -> None:
    other = place.folder / "other"
    other.write_bytes(b"precious")
    (place.folder / KEPT[1]).symlink_to(other)
    place.convert()
    assert other.read_bytes() == b"precious"
    place.assert_complete("other")


def test_finished_file_with_two_names_is_not_written_to(place: Place) -> None:
    place.fail()
    os.link(place.folder / KEPT[1], place.folder / "finished")
    before = (place.folder / "finished").read_bytes()
    assert place.convert().resumed_bytes == 0
    assert (place.folder / "finished").read_bytes() == before
    place.assert_complete("finished")


@pytest.mark.parametrize("option", ["update", "allow_changed"])
def test_options_that_contradict_resume(place: Place, option: str) -> None:
    with pytest.raises(ValueError, match="resume goes on with one source"):
        place.convert(**{option: True})


def test_sink_cannot_be_resumed(place: Place) -> None:
    with pytest.raises(ValueError, match="has to go to the path of a file"):
        convert(place.source, NullSink(), resume=True)
