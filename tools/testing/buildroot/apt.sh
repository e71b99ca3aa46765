# shellcheck shell=bash
# Sourced by who makes a Debian root: by the machine's own apt configuration, under a temporary name, renamed when
# it is complete.
#
# The caller has sourced lib.sh, holds the lock `setup`, and has set:
#   DEBIAN      the release of Debian (trixie, forky)
#   root        where the root will be: $SMC_CACHE/root/NAME
#   packages    a function that prints the package names, one a line

probe=$SMC_CACHE/apt.tmp

packages_stamp() { packages | sha256sum | cut -c 1-16; }

# Whether the root is there and has every package.
root_ready() { [ "$(cat "$root/.smc_rs-ready" 2>/dev/null)" = "$(packages_stamp)" ]; }

# What an interrupted run left behind. Holding the lock, nobody else can be using it.
remove_leftovers() { remove_tree "$SMC_CACHE"/root/*.tmp "$SMC_CACHE"/kernel/*.tmp "$probe"; }

# Whether there is room for so many GB.
need_room() { # GB
	local free_gb
	free_gb=$(($(df -Pk "$SMC_CACHE" | awk 'NR == 2 { print $4 }') / 1024 / 1024))
	[ "$free_gb" -ge "$1" ] || die "$SMC_CACHE has $free_gb GB free and the set-up needs $1 GB: free some space, or point XDG_CACHE_HOME at a larger file system"
}

# Whether there is a mirror to ask.
need_mirror() {
	[ -n "$(mirrors)" ] || die "apt on this machine has no Debian mirror configured: add one to /etc/apt/sources.list and run 'apt-get update'"
}

# Options by which this machine reaches its mirror at all, as apt.conf lines.
apt_options() {
	apt-config dump | grep -E '^(Acquire::(https?|ftp|Check-Valid-Until|Check-Date|Max-FutureTime|Retries|ForceIPv[46]|AllowInsecureRepositories|By-Hash|Queue-Mode|Languages)|APT::Get::AllowUnauthenticated)' || true
	echo 'APT::Update::Error-Mode "any";'
	echo 'Acquire::Languages "none";'
	echo 'APT::Install-Recommends "false";'
}

# Debian mirrors that the machine is configured with, best first.
mirrors() {
	apt-get indextargets --format "\$(CREATED_BY)|\$(COMPONENT)|\$(LABEL)|\$(REPO_URI)" 2>/dev/null |
		awk -F '|' '$1 == "Packages" && $2 == "main" && ($3 == "Debian" || $3 == "" || $3 == "$(LABEL)") && !seen[$4]++ { print $4 }'
}

suites() {
	case $DEBIAN in
	trixie) echo trixie trixie-backports ;;
	*) echo "$DEBIAN" ;;
	esac
}

# Sources for DEBIAN at one mirror.
sources() {
	local suite key=/usr/share/keyrings/debian-archive-keyring.gpg opt=
	[ ! -r "$key" ] || opt="[signed-by=$key] "
	for suite in $(suites); do
		printf 'deb %s%s %s main\n' "$opt" "$1" "$suite"
	done
}

apt_in() {
	# apt with lists and sources of its own; the machine's lists stay as they are.
	local dir=$1 tool=$2
	shift 2
	"$tool" -o Dir::Etc::sourcelist="$dir/sources.list" -o Dir::Etc::sourceparts=/dev/null \
		-o Dir::State="$dir/state" -o Dir::State::status="$dir/status" -o Dir::Cache="$dir/cache" \
		-o Acquire::Languages=none -o APT::Update::Error-Mode=any "$@"
}

find_mirror() {
	local mirror
	while IFS= read -r mirror; do
		sources "$mirror" >"$probe/sources.list"
		echo "trying $mirror for $(suites)"
		if apt_in "$probe" apt-get update; then
			printf '%s\n' "$mirror" >"$probe/mirror"
			return 0
		fi
	done < <(mirrors)
	return 1
}

# Leaves the sources of a mirror that has this Debian in $probe/sources.list.
choose_mirror() {
	mkdir -p "$probe/state/lists/partial" "$probe/cache/archives/partial"
	: >"$probe/status"
	chmod -R a+rX "$probe"
	if ! (STAGE_HINT='' stage setup.log "looking for Debian $DEBIAN at the machine's own mirror" find_mirror) 2>"$probe/err"; then
		sed '$d' "$probe/err" >&2
		die "no mirror of this machine's apt configuration serves $(suites | sed 's/ / and /'): check the network and /etc/apt/sources.list, then try again; apt's own words are in $SMC_CACHE/log/setup.log"
	fi
	cat "$probe/err" >&2
}

make_root() {
	local include
	include=$(packages | paste -sd,)
	apt_options >"$probe/apt.conf"
	# unsafe-io: no sync for every file; the root counts only when it is complete and renamed.
	# In namespaces of its own: mmdebstrap mounts /dev, /proc and /sys in the new root, and these
	# mounts must not outlive it, however it ends.
	# shellcheck disable=SC2016
	unshare --mount --propagation private --pid --fork --kill-child -- \
		mmdebstrap --mode=root --variant=apt --format=directory --architectures=amd64 \
		--aptopt="$probe/apt.conf" --include="$include" --skip=cleanup/apt/lists --dpkgopt=force-unsafe-io \
		--essential-hook='printf "#!/bin/sh\nexit 101\n" >"$1/usr/sbin/policy-rc.d" && chmod 755 "$1/usr/sbin/policy-rc.d"' \
		"$DEBIAN" "$root.tmp" - <"$probe/sources.list"
	# mmdebstrap takes its own policy-rc.d away: no service may ever start in here.
	printf '#!/bin/sh\nexit 101\n' >"$root.tmp/usr/sbin/policy-rc.d"
	chmod 755 "$root.tmp/usr/sbin/policy-rc.d"
	mkdir -p "$root.tmp/src" "$root.tmp/cache"
	packages_stamp >"$root.tmp/.smc_rs-ready"
}

# The package list has grown since the root was made.
top_up() {
	apt_options >"$root/etc/apt/apt.conf.d/90smc_rs"
	cp "$probe/sources.list" "$root/etc/apt/sources.list"
	"$SMC_SRC/tools/testing/buildroot/enter" "${root##*/}" apt-get update
	# shellcheck disable=SC2046
	"$SMC_SRC/tools/testing/buildroot/enter" "${root##*/}" env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends $(packages)
	"$SMC_SRC/tools/testing/buildroot/enter" "${root##*/}" apt-get clean
	packages_stamp >"$root/.smc_rs-ready"
}

# Makes the root, or adds to it what the list of packages has gained.
provide_root() { # TEXT
	if [ ! -e "$root/.smc_rs-ready" ]; then
		if ! command -v mmdebstrap >/dev/null; then
			# shellcheck disable=SC2317
			install_mmdebstrap() { apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends mmdebstrap; }
			STAGE_HINT="mmdebstrap could not be installed: install it by hand with 'apt-get install mmdebstrap'; " \
				stage setup.log "installing mmdebstrap" install_mmdebstrap
		fi
		stage setup.log "making the Debian $DEBIAN root $1" make_root
		mv -T "$root.tmp" "$root"
	elif ! root_ready; then
		stage setup.log "adding packages to the Debian $DEBIAN root $1" top_up
	fi
}
