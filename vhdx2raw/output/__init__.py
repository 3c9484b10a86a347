"""How raw output is made: a sparse file, a block device, a stream, or nothing at all.

A sink says what it can do, and the loop in `operations.copying` decides what to do about it.
"""
