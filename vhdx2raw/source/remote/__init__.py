"""Files that are read where they are: on a web server, or in an object store.

`options` has what the user decides, `url` what a URL names and what lies beside it, `stores` who is
asked for it, with which credentials, `transfer` requests, checked and made again, `network`
their threads, `failures` what became of them, `cache` what was read before, `source` the bytes.

Nothing here is imported for a file of the host.
"""
