"""The bytes of one file, by exact positioned reads: local files, file objects, raw disks."""
