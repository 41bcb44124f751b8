# What the host asks of a running guest, in lines on the control channel (descriptor 3); init.sh has the contract.
# Init sources this. Of a disk that has an init of its own it is a service: sh agent serve TERMINAL.

# The shell that reads must have no children in the background: when one ends while a line comes in, "read" starts over
# and forgets what it has of the line.
obey() {
	case $1 in
	size) stty -F "$terminal" rows "$2" columns "$3" ;;
	signal)
		read -r pid </run/command.pid
		kill "-$2" "-$pid"
		;;
	run)
		bulk
		(answer "$2" "$3" &)
		;;
	exec)
		bulk
		mkdir -p /run/nemu
		mkfifo /run/nemu/"$2".in
		(execute "$2" "$3" &)
		;;
	# A shell lets no child in its background be interrupted, nor what that starts: the second setsid, of a process that
	# leads a group by then, forks and leaves instead.
	terminal)
		bulk
		mkdir -p /run/nemu
		mkfifo /run/nemu/"$2".in
		echo "${3##* }" | base64 -d >/run/nemu/"$2"
		setsid setsid sh "$agent" terminal $to "$2" ${3% *} </dev/null
		;;
	winsize)
		read -r tty </run/nemu/"$2".tty && stty -F "$tty" rows "${3% *}" columns "${3#* }"
		;;
	# Opened for both ways a fifo never blocks; the host sends no more than it holds.
	in) [ -p /run/nemu/"$2".in ] && echo "$3" 1<>/run/nemu/"$2".in ;;
	# What waits for "go" looks whether the file has something in it: that takes no fork.
	hold) [ -e /run/nemu/"$2" ] && echo . >/run/nemu/"$2".hold ;;
	go) [ -e /run/nemu/"$2".hold ] && : >/run/nemu/"$2".hold ;;
	# One that is only about to start finds that it is not wanted.
	stop)
		mkdir -p /run/nemu
		: >/run/nemu/"$2".stop
		read -r pid </run/nemu/"$2".pid && kill -TERM "-$pid"
		;;
	esac
}

# Opens the port for much at once, when there is one: from then on what commands read and print goes over that, on
# descriptor 6. Its driver may have come after the agent, and its device may go.
to=3
port=
bulk() {
	[ -n "$port" ] && [ -c "$port" ] && return
	to=3
	port=
	for file in /sys/class/virtio-ports/*/name; do
		name=
		[ -e "$file" ] && read -r name <"$file"
		[ "$name" = nemu.agent ] || continue
		file=${file%/name}
		# Without "command" a shell ends when it cannot open: somebody else may have.
		command exec 6<>"/dev/${file##*/}" || return
		port=/dev/${file##*/}
		to=6
		(obey_port &)
		return
	done
}

# A port of which the guest has not heard yet that the host has it open ends at once.
obey_port() {
	while [ -c "$port" ]; do
		while read -r first second third; do obey "$first" "$second" "$third"; done
		sleep 1
	done <&6
}

# Starts a script, given by its file, so that it can be stopped: 143 is the status of SIGTERM.
leader='echo $$ >"$0".pid; [ -e "$0".stop ] && exit 143; exec sh "$0"'

# Runs a script, sends what it prints as it comes, and its status. Both ways the bytes are base64.
answer() {
	mkdir -p /run/nemu
	file=/run/nemu/$1
	echo "$2" | base64 -d >"$file"
	{
		cd /root
		setsid sh -c "$leader" "$file" </dev/null 2>&1 3>&- 6>&-
		echo $? >"$file".status
	} | encode out "$1"
	ran "$1"
}

# Runs a script with standard input from the host, and sends its two outputs apart.
execute() {
	file=/run/nemu/$1
	echo "$2" | base64 -d >"$file"
	{
		{
			cd /root
			feed "$1" <>"$file".in | {
				setsid sh -c "$leader" "$file" 3>&- 6>&-
				echo $? >"$file".status
				# What feeds it may wait for more.
				echo . 1<>"$file".in
			}
		} 2>&1 >&5 5>&- | encode err "$1" 5>&-
	} 5>&1 | encode out "$1"
	ran "$1"
}

# Runs a script in a terminal of its own: $1 id, $2 rows, $3 columns. Of what makes one there is either
# busybox' telnetd, whose streams are Telnet's, or the script of util-linux; the host is told which. Both may lose what
# is on its way when the terminal closes, so the login says that it has ended and stays until the host hangs up.
interact() {
	file=/run/nemu/$1
	cat >"$file".login <<-END
		#!/bin/sh
		echo \$\$ >$file.pid
		[ -e $file.stop ] && exit 143
		tty >$file.tty
		stty sane rows $2 columns $3
		trap : INT QUIT
		cd /root
		sh $file
		echo \$? >$file.status
		stty sane
		printf '\033]nemu;$1\007'
		while read -r line; do :; done
	END
	chmod +x "$file".login
	if telnetd=$(command -v telnetd); then
		echo "tty $1 telnet" >&$to
		set -- "$1" "$telnetd" -i -f /dev/null -l "$file".login
	else
		echo "tty $1 plain" >&$to
		set -- "$1" script -qefc "$file".login /dev/null
	fi
	feed "$1" <>"$file".in | {
		shift
		"$@" 2>&1 3>&- 6>&-
		echo . 1<>"$file".in
	} | encode out "$1"
	ran "$1"
}

# Says how a script has ended, and removes what there is of it. One that was killed has not said its status: SIGHUP.
ran() {
	status=129
	[ -e "/run/nemu/$1.status" ] && read -r status <"/run/nemu/$1.status"
	rm -f "/run/nemu/$1" "/run/nemu/$1".*
	echo "ran $1 $status" >&$to
}

# Lines of base64, behind "=" packed by gzip where the host was told that it may, and a dot behind the last. What is
# written before somebody has opened a fifo to read is lost.
feed() {
	took=.
	command -v gunzip >/dev/null && took=z
	echo "took $1 $took" >&$to
	while read -r line && [ "$line" != . ]; do
		case $line in
		=*) echo "${line#=}" | base64 -d | gunzip || break ;;
		*) echo "$line" | base64 -d || break ;;
		esac
		echo "took $1 $took" >&$to
	done
}

# Sends what comes as it comes: base64 itself would wait for more. One read of dd gives what there is. A byte on the
# channel costs more than a tool does: much is packed, as far as that makes it less. Lines are short, for what several
# write at the same time must not mix.
encode() {
	while lines=$(dd bs=24000 count=1 2>/dev/null | base64 -w 3000) && [ -n "$lines" ]; do
		word=$1
		if [ ${#lines} -gt 2000 ]; then
			packed=$(echo "$lines" | base64 -d | gzip -1 | base64 -w 3000)
			[ -n "$packed" ] && [ ${#packed} -lt ${#lines} ] && word=z$1 lines="$packed ."
		fi
		# Nobody takes it now: what comes behind it waits in the pipe, and so does who writes there.
		while [ -s /run/nemu/"$2".hold ]; do sleep 0.1 || sleep 1; done
		for line in $lines; do echo "$word $2 $line"; done >&$to
	done
}

case $1 in
serve)
	agent=$0
	terminal=/dev/$2
	exec 3<>/dev/ttyS3 || exit 0
	stty raw -echo -opost <&3
	echo "phase agent $(cut -d ' ' -f 1 /proc/uptime)" >&3
	while read -r first second third; do obey "$first" "$second" "$third"; done <&3
	;;
terminal)
	to=$2
	shift 2
	interact "$@"
	;;
esac
