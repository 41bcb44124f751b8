#!/bin/busybox sh
# Init of NEMU's guests. It runs as process 1 from the initramfs, does what /nemu/mode says, and powers off.
#
#   /nemu/mode      "shell" or "command"
#   /nemu/command   in mode "command": a shell script, sourced by its own shell
#   /nemu/env       assignments to export, sourced
#   /nemu/tty       "ROWS COLUMNS": the user's terminal; a command then gets a terminal too (a shell is told of its size below)
#   /nemu/root      device with a system of its own: commands run in it, and a shell makes way for its init
#   /nemu/net       a line for each network card: INTERFACE ADDRESS/BITS GATEWAY NAMESERVER
#   /nemu/modules   modules to load before anything runs; /nemu/modules.late: after that
#
# Serial ports: the console has the shell. In mode "command" ttyS1 is standard input and output, ttyS2 is
# standard error. ttyS3 is the control channel, in lines:
#   to the host    phase init|ready|settled SECONDS, exit STATUS; phase root SECONDS: the disk's own init takes over
#                  out ID BASE64, err ID BASE64, took ID .|z, ran ID STATUS, tty ID telnet|plain
#                  zout ID BASE64, zout ID ., zerr ID BASE64, zerr ID .: a piece that gzip has packed, and its end
#   to the guest   size ROWS COLUMNS, signal INT|TERM|..., run ID BASE64, stop ID
#                  hold ID (its output waits), go ID
#                  exec ID BASE64, in ID BASE64, in ID =BASE64 (packed by gzip, after "took ID z"), in ID .
#                  terminal ID ROWS COLUMNS BASE64, winsize ID ROWS COLUMNS
# Of a virtio console the port nemu.agent takes over what belongs to an ID once the guest has said something of that there.
# Any of these ports may be missing. Forks are what costs time here: read, echo and mkdir need none.

exec 2>/dev/null
mount -a
exec 3<>/dev/ttyS3 || exec 3<>/dev/null
read -r up rest </proc/uptime
# Before anything is said that the host may answer: of an answer that is echoed while a line is on its way to the host,
# the echo is a part of that line.
stty raw -echo <&3
echo "phase init $up" >&3

export PATH=/sbin:/bin:/usr/sbin:/usr/bin HOME=/root TERM=linux PS1='\w \$ '
read -r mode </nemu/mode
read -r rows columns </nemu/tty
read -r modules </nemu/modules
read -r root </nemu/root
[ -e /nemu/env ] && . /nemu/env
echo nemu >/proc/sys/kernel/hostname
# What is plugged is to leave again: the kernel must put nothing there that cannot be moved.
echo online_movable >/sys/devices/system/memory/auto_online_blocks
cd /root

# The terminal that is interactive, if any: the last console of the kernel, or ttyS1 for a command.
read -r consoles </sys/class/tty/console/active
console=/dev/${consoles##* }
[ "$console" = /dev/ ] && console=/dev/ttyS0
terminal=$console
[ "$mode" = command ] && terminal=/dev/ttyS1

finish_setup() {
	mkdir -p /dev/pts /dev/shm
	mount -t devpts devpts /dev/pts
	ip link set lo up
	[ -n "$modules" ] && modprobe -qa $modules
	# udev's part: ports of a virtio console by their names.
	for file in /sys/class/virtio-ports/*/name; do
		[ -e "$file" ] || continue
		mkdir -p /dev/virtio-ports
		read -r name <"$file"
		file=${file%/name}
		ln -s "../${file##*/}" "/dev/virtio-ports/$name"
	done
	while read -r interface address gateway nameserver; do
		ip addr add "$address" dev "$interface"
		ip link set "$interface" up
		ip route add default via "$gateway" dev "$interface"
		echo "nameserver $nameserver" >>/etc/resolv.conf
	done </nemu/net
}

# What nobody waits for: late modules, and devices and processors that are plugged in while the guest runs.
late_setup() {
	read -r modules </nemu/modules.late
	[ -n "$modules" ] && modprobe -qa $modules
	uevent /nemu/hotplug &
	obey_power_button
	busybox --install -s /bin
	# Devices that came before anyone listened.
	aliases=
	for file in /sys/bus/pci/devices/*/modalias /sys/bus/virtio/devices/*/modalias; do
		[ -e "$file" ] && [ ! -e "${file%modalias}driver" ] && read -r modalias <"$file" && aliases="$aliases $modalias"
	done
	[ -n "$aliases" ] && modprobe -qa $aliases
	read -r cmdline </proc/cmdline
	case " $cmdline" in *" maxcpus="*) settled && return ;; esac
	for file in /sys/devices/system/cpu/cpu*/online; do
		read -r online <"$file"
		[ "$online" = 0 ] && echo 1 >"$file"
	done
	settled
}

# The first event of the power button is that it was pressed.
obey_power_button() {
	for file in /sys/class/input/event*/device/name; do
		name=
		[ -e "$file" ] && read -r name <"$file"
		[ "$name" = 'Power Button' ] || continue
		file=${file%/device/name}
		({ dd bs=24 count=1 && sync && power_off; } <"/dev/input/${file##*/}" >/dev/null &)
	done
}

settled() {
	read -r up rest </proc/uptime
	echo "phase settled $up" >&3
}

agent=/nemu/agent
. $agent

# Reads the control channel as long as it lives. The wait gives the guest's shell or command a head start.
# It runs in a pipeline with what goes on beside it: what a shell has in its background cannot be interrupted.
serve() {
	({ sleep 0.2; "$@"; } &)
	while read -r first second third; do
		obey "$first" "$second" "$third"
	done <&3
}

ready() {
	read -r up rest </proc/uptime
	echo "phase ${1-ready} $up" >&3
}

# "stty" waits until the output was sent (TCSADRAIN), however long that takes; "close" gives up after 30 s.
power_off() {
	stty -opost <&3
	echo 0 >/proc/sys/kernel/printk
	exec poweroff -f
}

# What serves the control channel when systemd is process 1; it lives in memory and leaves the disk alone.
install_agent() {
	mkdir -p /newroot/run
	mount -t tmpfs -o mode=0755 tmpfs /newroot/run
	units=/newroot/run/systemd/system
	mkdir -p /newroot/run/nemu $units/multi-user.target.wants
	cp $agent /newroot/run/nemu/agent
	printf '[Unit]\nDescription=NEMU guest agent\n[Service]\nExecStart=/bin/sh /run/nemu/agent serve %s\n' \
		"${console#/dev/}" >$units/nemu-agent.service
	ln -s ../nemu-agent.service $units/multi-user.target.wants/
}

# The disk's own init takes over, and with it all that this one does.
root_mode() {
	finish_setup
	mkdir -p /newroot
	mount -t ext4 "$root" /newroot && {
		install_agent
		ready root
		for each in dev proc sys; do mount -o move "/$each" "/newroot/$each"; done
		# By its path: without /proc, the shell does not find its own applets.
		exec /bin/busybox switch_root /newroot /sbin/init <"/newroot$console" >"/newroot$console" 2>&1 3>&-
	}
	echo "The root file system on $root cannot be mounted: here is a shell instead." >"$console"
	shell_mode
}

shell_mode() {
	start_late() {
		finish_setup
		late_setup
	}
	serve start_late </dev/null >/dev/null | {
		ready
		# busybox prints its banner on standard output before it reads $ENV, where that becomes the console too.
		ENV=/nemu/shellrc setsid -c sh -i <>"$console" >/dev/null 2>&0 3>&-
		echo "exit $?" >&3
		power_off
	}
}

# Mounts the system that the guest has on a disk, with what of this one it needs.
enter_root() {
	mkdir -p /newroot
	mount -t ext4 "$root" /newroot || {
		echo "The root file system on $root cannot be mounted." >/dev/ttyS2
		return 1
	}
	mount -o rbind /dev /newroot/dev
	mount -t proc proc /newroot/proc
	mount -t sysfs sysfs /newroot/sys
	mount -t tmpfs tmpfs /newroot/run
}

command_mode() {
	exec 4<>/dev/ttyS1 5<>/dev/ttyS2
	finish_setup
	script='echo $$ >/run/command.pid; . /nemu/command'
	if [ -n "$root" ] && enter_root; then
		cp /nemu/command /newroot/run/nemu-command
		script='echo $$ >/run/command.pid; exec chroot /newroot /bin/sh -c ". /run/nemu-command" command'
	fi
	if [ -n "$columns" ]; then
		stty rows "$rows" columns "$columns" crtscts <&4
		serve late_setup </dev/null >/dev/null 4>&- 5>&- | {
			ready
			setsid -c sh -c "$script" command <&4 >&4 2>&4 3>&- 4>&- 5>&-
			end_command $?
		}
	else
		stty icanon iexten -echo -isig -icrnl -ixon -opost crtscts lnext ^V eof ^D \
			erase undef kill undef werase undef rprnt undef eol undef eol2 undef <&4
		stty -echo -opost crtscts <&5
		serve late_setup </dev/null >/dev/null 4>&- 5>&- | {
			ready
			setsid sh -c "$script" command <&4 >&4 2>&5 3>&- 4>&- 5>&-
			end_command $?
		}
	fi
}

end_command() {
	stty -opost <&4
	stty -opost <&5
	echo "exit $1" >&3
	umount /newroot
	sync
	power_off
}

case $mode in
command) command_mode ;;
*) if [ -n "$root" ]; then root_mode; else shell_mode; fi ;;
esac
