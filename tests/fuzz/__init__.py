"""Hostile input: images spoiled on purpose, and what the package may do with them.

`sparse` (a file as its pages that are not zero), `bases` (the images that are spoiled), `fields`
(where the numbers of an image stand), `values` (what to put there), `mutations` and
`log_mutations` (ways to spoil), `repair` (checksums), `actions` (what is done with an image),
`limits` (time and memory), `cases` (all of it by a number), `__main__` (the command line),
`atheris_harness` (the same cases led by coverage). `paths` and `valid` try what is not spoiled, and
must be read right by every path. README.md says how to run them.
"""
