#!/bin/sh
# Make sample.vhdx anew: a small ext4 file system, put into a VHDX by QEMU.
# Needs e2fsprogs and qemu-img. QEMU draws new GUIDs each time, the disk inside stays the same.
set -eu
cd "$(dirname "$0")"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/files"
echo "Hello from inside a VHDX." >"$work/files/hello.txt"
touch -d @0 "$work/files" "$work/files/hello.txt"
truncate -s 16M "$work/disk.raw"
E2FSPROGS_FAKE_TIME=1 mke2fs -q -t ext4 -O ^has_journal,^metadata_csum_seed -N 64 -m 0 -L sample \
    -U 11111111-2222-3333-4444-555555555555 -E hash_seed=11111111-2222-3333-4444-555555555555,root_owner=0:0 \
    -d "$work/files" "$work/disk.raw"
qemu-img convert -f raw -O vhdx -o subformat=dynamic,block_size=1M "$work/disk.raw" sample.vhdx
sha256sum sample.vhdx "$work/disk.raw"
