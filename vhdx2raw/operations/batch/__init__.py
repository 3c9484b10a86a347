"""Many disks in one run or shared by many machines: lists, plans, shards and results."""
