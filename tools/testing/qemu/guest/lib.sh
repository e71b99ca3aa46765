# shellcheck shell=bash
# Sourced in the test machine by every command and by the interactive shell.

cmdline_value() { # NAME DEFAULT
	local word
	# shellcheck disable=SC2013
	for word in $(cat /proc/cmdline); do
		case $word in "$1="*)
			echo "${word#*=}"
			return
			;;
		esac
	done
	echo "$2"
}

# Ends the machine. QEMU leaves with 2*N+1; a panic or a plain power-off cannot make 33.
finish() {
	local code=$((0x10 + ($1 != 0)))
	# Let the serial ports drain.
	sleep 0.2
	# shellcheck disable=SC2059
	printf "\\x$(printf %x "$code")" | dd of=/dev/port bs=1 seek=$((0xf4)) conv=notrunc status=none
	echo o >/proc/sysrq-trigger
	sleep 60
}

# Two hosts, A (10.9.0.1) and B (10.9.0.2): namespaces joined by veth, a Soft-RoCE device on each.
hosts_up() { smc-selftest hosts up; }
hosts_down() { smc-selftest hosts down; }
in_a() { ip netns exec A "$@"; }
in_b() { ip netns exec B "$@"; }

if [[ $- == *i* ]]; then
	PS1='vm:\w# '
fi
