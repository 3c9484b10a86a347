"""Convert VHDX virtual disks to raw, sparse disk images, or read them as files.

    open(path, ...)          the virtual disk as a read-only, seekable file: a `VirtualDisk`
    convert(path, image)     make a raw image of it: a `ConversionResult`
    apply(path, image)       put a checkpoint's changes onto a raw image: an `ApplyResult`
    check(path, ...)         everything that is wrong with a file: a `CheckReport`
    compare(disk, other)     whether two disks hold the same bytes: a `Comparison`
    digest(disk, "sha256")   the digest that its raw image has

Every error is a `Vhdx2rawError`, or an `OSError` of the host.

How the package is built: a byte passes these packages from left to right, and imports go the other
way only.

    source    exact positioned reads of one file
    vhdx      the format: header, log, regions, metadata, BAT; one file becomes a `VhdxImage`
    disk      a chain of images, and what every range of the virtual disk is
    output    how raw output is made
    operations  convert, apply, compare, digest, check
    cli       words, options, progress, exit codes

The format is described in Microsoft's open specification MS-VHDX; section numbers in this
package are those of its revision 8.0, and rules R1, R2, ... are listed in docs/format-rules.md.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vhdx2raw.disk.chain import OpenOptions
    from vhdx2raw.disk.extents import Extent, ExtentKind
    from vhdx2raw.disk.partition import PartitionFile
    from vhdx2raw.disk.virtual_disk import VirtualDisk, open_disk
    from vhdx2raw.errors import (
        CorruptImageError,
        ImageError,
        MountError,
        NoSpaceError,
        OutputError,
        ParentCycleError,
        ParentError,
        ParentMismatchError,
        ParentNotFoundError,
        PartitionError,
        RemoteError,
        ServerError,
        SourceChangedError,
        TruncatedImageError,
        UnsupportedImageError,
        UntoldResultError,
        Vhdx2rawError,
    )
    from vhdx2raw.findings import Finding, Severity
    from vhdx2raw.keywords import with_keywords
    from vhdx2raw.operations.apply import ApplyOptions, ApplyResult, apply_checkpoint
    from vhdx2raw.operations.check import CheckReport, check_file
    from vhdx2raw.operations.compare import Comparison, compare
    from vhdx2raw.operations.convert import ConversionResult, ConvertOptions, convert_disk
    from vhdx2raw.operations.digest import digest
    from vhdx2raw.operations.progress import ProgressCallback
    from vhdx2raw.output.base import Sink
    from vhdx2raw.output.block_device import BlockDeviceSink
    from vhdx2raw.output.null import NullSink
    from vhdx2raw.output.sparse_file import SparseFileSink
    from vhdx2raw.output.stream import StreamSink
    from vhdx2raw.source.raw_file import RawFile
    from vhdx2raw.vhdx.log import LogPolicy

    open = with_keywords("open", open_disk, OpenOptions)  # noqa: A001 - like gzip.open
    convert = with_keywords("convert", convert_disk, ConvertOptions)
    apply = with_keywords("apply", apply_checkpoint, ApplyOptions)
    check = with_keywords("check", check_file, OpenOptions)
    __version__: str

__all__ = [
    "ApplyResult",
    "BlockDeviceSink",
    "CheckReport",
    "Comparison",
    "ConversionResult",
    "CorruptImageError",
    "Extent",
    "ExtentKind",
    "Finding",
    "ImageError",
    "LogPolicy",
    "MountError",
    "NoSpaceError",
    "NullSink",
    "OutputError",
    "ParentCycleError",
    "ParentError",
    "ParentMismatchError",
    "ParentNotFoundError",
    "PartitionError",
    "PartitionFile",
    "ProgressCallback",
    "RawFile",
    "RemoteError",
    "ServerError",
    "Severity",
    "Sink",
    "SourceChangedError",
    "SparseFileSink",
    "StreamSink",
    "TruncatedImageError",
    "UnsupportedImageError",
    "UntoldResultError",
    "Vhdx2rawError",
    "VirtualDisk",
    "__version__",
    "apply",
    "check",
    "compare",
    "convert",
    "digest",
    "open",
]

_ERRORS = (
    *("CorruptImageError", "ImageError", "MountError", "NoSpaceError", "OutputError"),
    *("ParentCycleError", "ParentError", "ParentMismatchError", "ParentNotFoundError"),
    *("PartitionError", "RemoteError", "ServerError", "SourceChangedError", "TruncatedImageError"),
    *("UnsupportedImageError", "UntoldResultError", "Vhdx2rawError"),
)
_MODULES = {
    "ApplyResult": "operations.apply",
    "BlockDeviceSink": "output.block_device",
    "CheckReport": "operations.check",
    "Comparison": "operations.compare",
    "ConversionResult": "operations.convert",
    "Extent": "disk.extents",
    "ExtentKind": "disk.extents",
    "Finding": "findings",
    "LogPolicy": "vhdx.log",
    "NullSink": "output.null",
    "PartitionFile": "disk.partition",
    "ProgressCallback": "operations.progress",
    "RawFile": "source.raw_file",
    "Severity": "findings",
    "Sink": "output.base",
    "SparseFileSink": "output.sparse_file",
    "StreamSink": "output.stream",
    "VirtualDisk": "disk.virtual_disk",
    "compare": "operations.compare",
    "digest": "operations.digest",
    **dict.fromkeys(_ERRORS, "errors"),
}
"""The module of each public name, loaded when it is needed: a program rarely needs all of them."""
_FUNCTIONS = {
    "open": ("disk.virtual_disk", "open_disk", "disk.chain", "OpenOptions"),
    "convert": ("operations.convert", "convert_disk", "operations.convert", "ConvertOptions"),
    "apply": ("operations.apply", "apply_checkpoint", "operations.apply", "ApplyOptions"),
    "check": ("operations.check", "check_file", "disk.chain", "OpenOptions"),
}
"""By name, what does the work, and the options that become its keyword arguments."""
_DEPRECATED = {
    "Chain": "disk.chain",
    "VhdxImage": "vhdx.image",
    "iter_extents": "disk.walk",
    "open_chain": "disk.chain",
    "open_image": "vhdx.image",
}
"""Names that were public before 0.3.0, and the modules that have them."""

if not TYPE_CHECKING:  # so that a type checker reports a name that does not exist

    def __getattr__(name: str) -> object:
        if name == "__version__":
            from importlib import metadata  # noqa: PLC0415

            return metadata.version("vhdx2raw")
        if name in _DEPRECATED:
            import warnings  # noqa: PLC0415

            text = (
                f"vhdx2raw.{name} will go in version 1.0; VirtualDisk offers what it was used for"
            )
            warnings.warn(text, DeprecationWarning, stacklevel=2)
            return _load(_DEPRECATED[name], name)
        if name in _FUNCTIONS:
            from vhdx2raw.keywords import with_keywords  # noqa: PLC0415

            module, function, options_module, options = _FUNCTIONS[name]
            worker, fields = _load(module, function), _load(options_module, options)
            value = with_keywords(name, worker, fields)
            value.__module__ = with_keywords.__module__  # where `pickle` finds it again
        elif name in _MODULES:
            value = _load(_MODULES[name], name)
        else:
            raise AttributeError(f"module 'vhdx2raw' has no attribute {name!r}")
        globals()[name] = value  # found without us the next time
        return value

    def _load(module: str, name: str) -> object:
        from importlib import import_module  # noqa: PLC0415

        return getattr(import_module(f"vhdx2raw.{module}"), name)

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
