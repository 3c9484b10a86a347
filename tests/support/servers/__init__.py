"""Servers that files are read from: a web server with faults of its own, nginx, object stores.

`web` and `faults` are in this process and always there; nginx, moto (S3, and Google's API in its
manner) and Azurite (Azure) are other programs, without which a test is skipped.
"""
