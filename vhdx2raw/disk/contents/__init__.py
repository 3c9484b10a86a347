"""What lies inside a disk: partition tables, partitions, and what begins in each.

Every read is small and every count is bounded, since a guest can write anything here. What is
broken is listed, not raised.
"""

from vhdx2raw.disk.contents.partitions import Partition, PartitionTable, Scheme
from vhdx2raw.disk.contents.volumes import Disk, Usage, Volume, identify_volume
from vhdx2raw.disk.contents.whole import Contents, read_contents
from vhdx2raw.source.formats import name_image_format

__all__ = [
    "Contents",
    "Disk",
    "Partition",
    "PartitionTable",
    "Scheme",
    "Usage",
    "Volume",
    "identify_volume",
    "name_image_format",
    "read_contents",
]
