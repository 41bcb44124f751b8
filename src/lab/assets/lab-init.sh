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
# The network behind the emulator, see LAB_NETWORK in lab_qemu.ts.
ip addr add 172.31.255.15/24 dev eth0
ip link set eth0 up
ip route add default via 172.31.255.2
mkdir -p /etc
echo nameserver 172.31.255.3 >/etc/resolv.conf
cd /root
# Each port that a thread blocks on takes one of the pool's threads.
UV_THREADPOOL_SIZE=8 /nemu/node /nemu/lab-loader.mjs
echo "The lab's loader ended with status $?."
poweroff -f
