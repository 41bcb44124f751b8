#!/bin/busybox sh
# Run by uevent(8) of busybox for each event of the kernel; the event's fields are in the environment.
exec 2>/dev/null
case $ACTION-$SUBSYSTEM in
add-cpu) echo 1 >"/sys$DEVPATH/online" ;;
add-memory) echo online_movable >"/sys$DEVPATH/state" ;;
add-*) [ -n "$MODALIAS" ] && exec modprobe -q "$MODALIAS" ;;
esac
