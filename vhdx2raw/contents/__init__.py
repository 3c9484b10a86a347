"""What lies inside a disk: partition tables, partitions, and what begins in each.

Every read is small and every count is bounded, since a guest can write anything here. What is
broken is told, not raised.
"""

from vhdx2raw.contents.partitions import Partition, PartitionTable, Scheme
from vhdx2raw.contents.volumes import Disk, Usage, Volume, identify_volume, name_image_format
from vhdx2raw.contents.whole import Contents, read_contents

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
