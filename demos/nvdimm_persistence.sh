#!/bin/sh
# Persistent memory: a file system is made and mounted on it with DAX, a file is written and flushed, and the machine is
# killed in the middle of its work. The next one finds the file.
#
#     demos/nvdimm_persistence.sh
set -eu
nemu=${NEMU:-$(dirname "$0")/../bin/nemu}
name=demo-$$
folder=$(mktemp -d)
end() {
  "$nemu" kill $name >/dev/null 2>&1 || true
  "$nemu" rm $name >/dev/null 2>&1 || true
  rm -rf "$folder"
}
trap end EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# Files can be mapped directly when the namespace has the right mode: what `ndctl create-namespace` does.
fsdax='cd /sys/bus/nd/devices/pfn0.0
echo namespace0.0 >/sys/bus/nd/drivers/nd_pmem/unbind
echo ram >mode; echo 2097152 >align; cat /proc/sys/kernel/random/uuid >uuid; echo namespace0.0 >namespace
echo pfn0.0 >/sys/bus/nd/drivers/nd_pmem/bind'
# The kernel makes a driver's `bind` after the driver has its first devices, so the disk alone is there too early.
ready='until [ -b /dev/pmem0 -a -e /sys/bus/nd/drivers/nd_pmem/bind ]; do sleep 0.1; done'

start() {
  "$nemu" run -d --name $name --memory 512M,max=1G --nvdimm "$folder/pm.img,size=64M" >/dev/null
}

echo 'A machine with 64 MiB of persistent memory makes a file system on it.'
start
"$nemu" exec $name -- "$ready; $fsdax; mke2fs -b 4096 /dev/pmem0 >/dev/null 2>&1; mount -t ext4 -o dax /dev/pmem0 /mnt"
"$nemu" exec $name -- "sed -n 's/\\(.* ext4\\).*\\(dax=always\\).*/\\1 \\2/p' /proc/mounts"

echo 'It writes a file, and the flush is done.'
"$nemu" exec $name -- 'echo this was flushed >/mnt/file; sync /mnt/file; cat /mnt/file'

echo 'While it writes on, it is killed.'
"$nemu" exec $name -- "(setsid sh -c 'while :; do echo more >>/mnt/more; done' >/dev/null 2>&1 &)"
"$nemu" kill $name >/dev/null
"$nemu" rm $name >/dev/null

echo 'Another machine on the same file:'
start
"$nemu" exec $name -- "$ready; mount -t ext4 -o dax /dev/pmem0 /mnt && cat /mnt/file"
