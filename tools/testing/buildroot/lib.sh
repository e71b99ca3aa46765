# shellcheck shell=bash
# Shared by every script of the build root and the rig: places, messages, stages.
#
# Where things are kept (nothing of it inside the checkout):
#   $SMC_CACHE/root/SUITE        Debian root with the tool chain (SUITE: trixie, forky)
#   $SMC_CACHE/kernel/RELEASE    source, prepared build tree and unpacked packages of one kernel
#   $SMC_CACHE/build/RELEASE     module objects, initramfs and results for that kernel
#   $SMC_CACHE/cargo, target     crates and host-side Rust objects
#   $SMC_CACHE/log               one log per kind of work
# Inside the root the same directory is /cache and the checkout is /src.

# shellcheck disable=SC2034
SMC_SRC=$(cd "$(dirname "${BASH_SOURCE[0]}")/../../.." && pwd)
if [ -n "${SMC_IN_ROOT:-}" ]; then
	SMC_CACHE=/cache
else
	SMC_CACHE=${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/smc_rs
	SMC_CACHE_SHOWN=$SMC_CACHE
fi
# The name a person can open: inside the root /cache is not it.
: "${SMC_CACHE_SHOWN:=$SMC_CACHE}"
SMC_START=${SMC_START:-$(date +%s)}
export SMC_START

# One line that says what happened, where, and what to do.
die() {
	printf 'smc_rs: error: %s\n' "$*" >&2
	exit 1
}

note() {
	printf '[%4ds] %s\n' "$(($(date +%s) - SMC_START))" "$*" >&2
}

# The lines of a file, without comments.
list() { sed -e 's/#.*//' -e 's/[[:space:]]*$//' -e '/^$/d' "$1"; }

need_root() {
	[ "$(id -u)" = 0 ] || die "this needs root rights (a Debian root is entered with chroot): run it as root, for example with 'sudo -E make ...'"
}

# remove_tree DIR...: deletes what this project made, and never anything that is mounted there.
remove_tree() {
	local dir mount
	for dir in "$@"; do
		[ -e "$dir" ] || continue
		# Nothing should be mounted below (see `enter`); if something is, it goes first.
		while IFS= read -r mount; do
			umount -l "$mount"
		done < <(awk -v dir="$dir/" 'index($5, dir) == 1 { print $5 }' /proc/self/mountinfo | sort -r)
		rm -rf --one-file-system "$dir"
	done
}

# stage LOG TEXT COMMAND...: runs a command with its output in a log, and shows that it is alive.
stage() {
	local log=$SMC_CACHE/log/$1 text=$2 begin pid rc=0 told=0 took
	shift 2
	mkdir -p "$SMC_CACHE/log"
	begin=$(date +%s)
	note "$text ..."
	printf '\n=== %s: %s\n' "$(date -u +%FT%TZ)" "$text" >>"$log"
	("$@") >>"$log" 2>&1 </dev/null &
	pid=$!
	while kill -0 "$pid" 2>/dev/null; do
		sleep 0.5
		took=$(($(date +%s) - begin))
		if [ "$((took / 20))" -gt "$told" ]; then
			told=$((took / 20))
			note "  still at it after ${took} s: $(tail -n 1 "$log" | tr -d '\r' | cut -c 1-90)"
		fi
	done
	wait "$pid" || rc=$?
	if [ "$rc" != 0 ]; then
		tail -n 15 "$log" | sed 's/^/    | /' >&2
		die "${STAGE_HINT:-}failed: $text (exit $rc); the whole log is in $SMC_CACHE_SHOWN/log/${log##*/}"
	fi
}

# take_lock NAME: one at a time; the lock goes with the process, however it ends.
take_lock() {
	mkdir -p "$SMC_CACHE/lock"
	exec {SMC_LOCK_FD}>"$SMC_CACHE/lock/$1"
	if ! flock -n "$SMC_LOCK_FD"; then
		note "another run is working on '$1'; waiting for it"
		flock "$SMC_LOCK_FD"
	fi
}

drop_lock() {
	exec {SMC_LOCK_FD}>&-
}

# read_kernel SPEC: KREL, SERIES, SUITE and PKGVER of a kernel that `ensure` made ready.
read_kernel() {
	local file=$SMC_CACHE/kernel/spec-$1
	[ -r "$file" ] || die "kernel '$1' is not set up: run 'make setup KERNEL=$1'"
	# shellcheck disable=SC1090
	. "$file"
	KDIR_SRC=/cache/kernel/$KREL/source
	KDIR_OUT=/cache/kernel/$KREL/out
	export KREL SERIES SUITE PKGVER KDIR_SRC KDIR_OUT
}
