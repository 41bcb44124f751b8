# What the host asks of a running guest, in lines on the control channel (descriptor 3); init.sh has the contract.
# Init sources this. Of a disk that has an init of its own it is a service: sh agent serve TERMINAL.

# The shell that reads must have no children in the background: when one ends while a line comes in, "read" starts over
# and forgets what it has of the line.
obey() {
	case $1 in
	size) stty -F "$terminal" rows "$2" columns "$3" ;;
	signal)
		read -r leader </run/command.pid
		kill "-$2" "-$leader"
		;;
	run) (answer "$2" "$3" &) ;;
	exec)
		mkdir -p /run/nemu
		mkfifo /run/nemu/"$2".in
		(execute "$2" "$3" &)
		;;
	# Opened for both ways a fifo never blocks; the host sends no more than it holds.
	in) [ -p /run/nemu/"$2".in ] && echo "$3" 1<>/run/nemu/"$2".in ;;
	stop)
		read -r leader </run/nemu/"$2".pid
		kill -TERM "-$leader"
		;;
	esac
}

# The shell's own "read" takes a system call a byte.
awk=$(command -v awk || echo busybox awk)

# Runs a script, sends what it prints as it comes, and its status. Both ways the bytes are base64.
answer() {
	mkdir -p /run/nemu
	file=/run/nemu/$1
	echo "$2" | base64 -d >"$file"
	{
		cd /root
		setsid sh -c 'echo $$ >"$0".pid; exec sh "$0"' "$file" </dev/null 2>&1 3>&-
		echo $? >"$file".status
	} | base64 -w 1000 | $awk -v id="$1" '{ print "out " id " " $0; fflush() }' >&3
	read -r status <"$file".status
	rm -f "$file" "$file".pid "$file".status
	echo "ran $1 $status" >&3
}

# Runs a script with standard input from the host, and sends its two outputs apart.
execute() {
	file=/run/nemu/$1
	echo "$2" | base64 -d >"$file"
	{
		{
			cd /root
			feed "$1" <>"$file".in | {
				setsid sh -c 'echo $$ >"$0".pid; exec sh "$0"' "$file" 3>&-
				echo $? >"$file".status
				# What feeds it may wait for more.
				echo . 1<>"$file".in
			}
		} 2>&1 >&5 5>&- | encode err "$1" 5>&-
	} 5>&1 | encode out "$1"
	read -r status <"$file".status
	rm -f "$file" "$file".pid "$file".status "$file".in
	echo "ran $1 $status" >&3
}

# Lines of base64, and a dot behind the last. What is written before somebody has opened a fifo to read is lost.
feed() {
	echo "took $1 ." >&3
	while read -r line && [ "$line" != . ]; do
		echo "$line" | base64 -d || break
		echo "took $1 ." >&3
	done
}

encode() {
	base64 -w 1000 | $awk -v word="$1" -v id="$2" '{ print word " " id " " $0; fflush() }' >&3
}

if [ "$1" = serve ]; then
	terminal=/dev/$2
	exec 3<>/dev/ttyS3 || exit 0
	stty raw -echo -opost <&3
	echo "phase agent $(cut -d ' ' -f 1 /proc/uptime)" >&3
	while read -r first second third; do obey "$first" "$second" "$third"; done <&3
fi
