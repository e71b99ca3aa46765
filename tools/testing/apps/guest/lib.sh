# shellcheck shell=bash
# Sourced by every case, in the root with the programs. A case does not know over which transport it runs.
#
#   result NAME VALUE            tells a result: ok, skipped ..., or what went wrong
#   check NAME COMMAND...        ok if the command succeeds
#   same NAME EXPECTED GOT       ok if both are equal
#   on_a, on_b COMMAND...        on host A (10.9.0.1), on host B (10.9.0.2); else: the machine itself, loopback
#   serve PORT COMMAND...        starts a server on host B, and waits until it listens
#
# Output goes to the case's log. What is left running ends with the case.

begin() {
	mount -t proc proc /proc
	# Some programs use what they find there.
	rm -rf /tmp/* /run/case
	mkdir -p /run/case /run/sshd
	cd /run/case || exit
	# shellcheck source=tools/testing/apps/guest/programs.sh
	. /rig/programs.sh
}

result() { printf '%s\t%s\n' "$1" "${2//$'\n'/ }" >>"$RESULTS"; }

check() { # NAME COMMAND...
	local name=$1 rc=0
	shift
	printf '\n--- %s: %s\n' "$name" "$*"
	"$@" || rc=$?
	if [ "$rc" = 0 ]; then
		result "$name" ok
	else
		result "$name" "failed: exit $rc"
	fi
}

same() { # NAME EXPECTED GOT
	printf '\n--- %s: expected %s, got %s\n' "$1" "$2" "$3"
	if [ "$2" = "$3" ]; then
		result "$1" ok
	else
		result "$1" "failed: $3 instead of $2"
	fi
}

on_a() { nsenter --net=/run/netns/A "$@"; }
on_b() { nsenter --net=/run/netns/B "$@"; }

# Asked of the kernel: a connection to find out would be one more.
listens() { # HOST PORT
	[ -n "$("$1" ss -Hltn "sport = :$2")" ]
}

serve_on() { # HOST PORT COMMAND...
	local host=$1 port=$2 tries=600
	shift 2
	printf '\n--- server: %s\n' "$*"
	"$host" "$@" &
	until listens "$host" "$port"; do
		tries=$((tries - 1))
		if [ "$tries" = 0 ]; then
			result server "failed: does not listen on port $port: $*"
			exit 1
		fi
		sleep 0.1
	done
}

serve() { serve_on on_b "$@"; }

# Waits until a command succeeds, a minute at most.
await() { # NAME COMMAND...
	local name=$1 tries=600
	shift
	until "$@"; do
		tries=$((tries - 1))
		if [ "$tries" = 0 ]; then
			result "$name" "failed: still not after a minute"
			return 1
		fi
		sleep 0.1
	done
}

sum() { sha256sum "$@" | cut -d' ' -f1; }

# content FILE MIB: bytes without a pattern that any page or ring size divides; the same in each run.
content() {
	openssl enc -aes-128-ctr -K 0123456789abcdef0123456789abcdef -iv 0 -nosalt -in /dev/zero 2>/dev/null | head -c "$(($2 * 1024 * 1024))" >"$1"
}
