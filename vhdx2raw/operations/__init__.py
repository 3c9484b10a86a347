"""What can be done with a virtual disk: convert, compare, hash and check it."""
