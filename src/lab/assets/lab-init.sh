#!/bin/busybox sh
# Init of the lab: a virtual host that has KVM. It makes the machine ready and leaves it to the loader.

mount -a
mkdir -p /dev/pts /dev/shm /host /overlay /hostroot
mount -t devpts devpts /dev/pts
mount -t tmpfs tmpfs /dev/shm
export PATH=/sbin:/bin:/usr/sbin:/usr/bin HOME=/root TERM=linux PS1='lab:\w \$ '
echo nemu-lab >/proc/sys/kernel/hostname
ip link set lo up
read -r modules </nemu/modules
modprobe -qa $modules
busybox --install -s /bin 2>/dev/null
cd /root
# Each port that a thread blocks on takes one of the pool's threads.
UV_THREADPOOL_SIZE=8 /nemu/node /nemu/lab-loader.mjs
echo "The lab's loader ended with status $?."
poweroff -f
