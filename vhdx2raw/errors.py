"""The exceptions of this package, their facts and what can be done about them.

    Vhdx2rawError
      ImageError                    something about a VHDX file; carries a Finding
        UnsupportedImageError       not a VHDX, or valid but not supported
        CorruptImageError           the file breaks the specification
          TruncatedImageError       it ends before something that it promises
          SourceChangedError        it was changed while it was read
      ParentError                   a parent cannot be used
        ParentNotFoundError         it is nowhere, or where it may not be
        ParentMismatchError         it is not the version that the child was made from
        ParentCycleError            it is a file of the chain already
      PartitionError                a disk has no such partition, or it cannot be read as one
      MountError                    a disk cannot be mounted here
      RemoteError                   a file could not be read over the network
      OutputError                   the raw output cannot be made
        NoSpaceError                there is no room for it
      UntoldResultError             it is complete, but what tells of it cannot be written

Everything this package raises on its own account is below `Vhdx2rawError`. An `OSError` of the
host (an unreadable disk, no permission) is passed on as it is.

A remedy names what the caller can ask for in braces, by the name of the argument: ``{salvage}``.
The command line puts its options in their place, `Vhdx2rawError.hint` the arguments of Python.
"""

from __future__ import annotations

from vhdx2raw.findings import Finding, printable
from vhdx2raw.rules import Rule

CUT_OFF = (
    "the file was cut off, perhaps by an interrupted copy or a full disk;"
    " fetch it again, or restore it from a backup"
)
"""The remedy for every file that ends too early."""


class _ArgumentNames(dict[str, str]):
    def __missing__(self, name: str) -> str:
        return f"{name}="


_ARGUMENT_NAMES = _ArgumentNames(
    no_replay="LogPolicy.REFUSE",
    ignore_log="LogPolicy.IGNORE",
    parent_file="parents=[...]",
    parent_dir="parent_dirs=[...]",
)


class Vhdx2rawError(Exception):
    """Base of every error that this package raises.

    Attributes:
        message: What is wrong, without the name of the file.
        path: The file concerned, where there is one.
        remedy: What the caller can do about it, with names of arguments in braces, or nothing.
    """

    def __init__(self, message: str, *, path: str | None = None, remedy: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.path = path
        self.remedy = remedy

    @property
    def hint(self) -> str:
        """The remedy in terms of the Python API, or an empty string."""
        return self.remedy.format_map(_ARGUMENT_NAMES)

    def __str__(self) -> str:
        return f"{printable(self.path)}: {self.message}" if self.path else self.message


class ImageError(Vhdx2rawError):
    """A VHDX file cannot be read with certainty.

    Attributes:
        finding: The broken rule, as facts.
    """

    def __init__(self, finding: Finding, *, path: str | None = None, remedy: str = "") -> None:
        super().__init__(str(finding), path=path, remedy=remedy)
        self.finding = finding


class UnsupportedImageError(ImageError):
    """The file is not a VHDX, or needs something that this program does not do."""


class CorruptImageError(ImageError):
    """The file breaks the specification in a way that makes its contents uncertain."""


class TruncatedImageError(CorruptImageError):
    """The file ends before something that it promises."""

    def __init__(self, finding: Finding, *, path: str | None = None) -> None:
        super().__init__(finding, path=path, remedy=CUT_OFF)


class SourceChangedError(CorruptImageError):
    """The file was changed while it was read, so that what was read may be of two states."""


class ParentError(Vhdx2rawError):
    """A differencing disk cannot be read, because its parent cannot be used.

    Attributes:
        rule: The rule that keeps the file from being the parent.
        tried: Each path where it was looked for, and what was wrong there.
    """

    def __init__(
        self,
        message: str,
        *,
        rule: Rule = Rule.PARENT_MISSING,
        path: str | None = None,
        remedy: str = "",
        tried: tuple[str, ...] = (),
    ) -> None:
        super().__init__(message, path=path, remedy=remedy)
        self.rule = rule
        self.tried = tried


class ParentNotFoundError(ParentError):
    """The parent is in none of the places where it may be."""


class ParentMismatchError(ParentError):
    """The parent is not the version that the child was made from, or has other sectors."""


class ParentCycleError(ParentError):
    """The parent is the child itself, or another file of the chain."""


class PartitionError(Vhdx2rawError):
    """A disk has no partition of this number, or that one does not lie inside the disk."""


class RemoteError(Vhdx2rawError):
    """A file could not be read over the network: no connection, or not the answer that was needed.

    It says nothing about the file, so that no `salvage` takes it for damage.

    Attributes:
        status: Of the answer, by HTTP; 0 if there was none, or nothing wrong with its status.
    """

    def __init__(
        self, message: str, *, path: str | None = None, remedy: str = "", status: int = 0
    ) -> None:
        super().__init__(message, path=path, remedy=remedy)
        self.status = status


class MountError(Vhdx2rawError):
    """A disk cannot be mounted here: FUSE is missing, or refuses."""


class ServerError(Vhdx2rawError):
    """A disk cannot be served here: nbdkit is missing, cannot be used, or has failed."""


class OutputError(Vhdx2rawError):
    """The raw output cannot be made as it was asked for: it exists, or is the input."""


class NoSpaceError(OutputError):
    """The file system has no room for the output, or cannot hold a file of its length."""


class UntoldResultError(Vhdx2rawError):
    """The raw image is complete, but what was to be told of it cannot be written."""


def add_note(error: BaseException, note: str) -> None:
    """Do what `BaseException.add_note` does from Python 3.11 on."""
    notes = getattr(error, "__notes__", [])
    error.__notes__ = [*notes, note]  # type: ignore[attr-defined, unused-ignore]
