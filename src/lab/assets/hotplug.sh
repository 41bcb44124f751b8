#!/bin/busybox sh
# Run by uevent(8) of busybox for each event of the kernel; the event's fields are in the environment.
exec 2>/dev/null
case $ACTION-$SUBSYSTEM in
add-cpu) echo 1 >"/sys$DEVPATH/online" ;;
add-memory) echo online_movable >"/sys$DEVPATH/state" ;;
add-virtio-ports)
	# udev's part: ports of a virtio console by their names.
	read -r name <"/sys$DEVPATH/name"
	mkdir -p /dev/virtio-ports
	[ -n "$name" ] && ln -sf "../${DEVNAME#/dev/}" "/dev/virtio-ports/$name"
	;;
remove-virtio-ports)
	for link in /dev/virtio-ports/*; do
		[ -e "$link" ] || rm "$link"
	done
	;;
add-*) [ -n "$MODALIAS" ] && exec modprobe -q "$MODALIAS" ;;
esac
