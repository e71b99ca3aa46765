# shellcheck shell=bash
# The machines' parts of erdma-sim/test; runs in the test machine, as `. /rig/erdma/scenarios.sh; NAME_a`.
# A result is a line 'ok NAME' or 'not ok NAME: why'; the host counts them.

A=10.9.0.1 B=10.9.0.2
adapter=/sys/class/infiniband/erdma_0

# check NAME COMMAND...: one result, the command's output with it if it fails.
check() {
	local name=$1 text
	shift
	if text=$("$@" 2>&1); then echo "ok $name"; else echo "not ok $name: ${text//$'\n'/; }"; fi
}

# Until it succeeds, for up to two minutes; then what it said last.
eventually() { # COMMAND...
	local text begin=$SECONDS
	until text=$("$@" 2>&1); do
		[ $((SECONDS - begin)) -lt 120 ] || { echo "never: $*: $text"; return 1; }
		sleep 0.2
	done
}

up() { # ADDRESS
	modprobe -a virtio_pci virtio_net ib_uverbs
	eventually test -e /sys/class/net/eth0
	ip addr add "$1/24" dev eth0
	ip link set eth0 up
	modprobe erdma
	eventually test -e "$adapter"
}

is() { # WANTED COMMAND...
	local wanted=$1 text
	shift
	text=$("$@")
	[ "$text" = "$wanted" ] || { echo "'$*' says '$text' instead of '$wanted'"; return 1; }
}

# Machine B is told a word, when A is done with what came before; both over plain TCP.
tell() { eventually send "$1"; }
send() { echo "$1" | socat -u - "TCP:$B:4001"; }
hear() { timeout 800 socat -u "TCP-LISTEN:4001,reuseaddr" -; }

has_gid() { grep -q '^0000:0000:0000:0000:0000:ffff:' "$adapter"/ports/1/gids/{0,1}; }
active() { rdma link show erdma_0/1 | grep -q 'state ACTIVE physical_state LINK_UP netdev eth0'; }

verbs_b() {
	up "$B"
	modprobe rdma_ucm
	eventually has_gid
	timeout 120 ibv_rc_pingpong -d erdma_0 -g 1 -n 100 >/dev/null &
	timeout 120 rping -s -a "$B" -C 10 >/dev/null &
	[ "$(hear)" = finished ]
}

verbs_a() {
	up "$A"
	check verbs.port_is_active eventually active
	check verbs.gid_of_the_address eventually has_gid
	check verbs.node_is_a_channel_adapter is '1: CA' cat "$adapter/node_type"
	modprobe rdma_ucm
	check verbs.other_machine_is_there eventually ping -c 1 -W 1 "$B"
	# Pairs, regions, completion events, doorbell pages of a process.
	check verbs.rc_pingpong eventually timeout 30 ibv_rc_pingpong -d erdma_0 -g 1 -n 100 "$B"
	# The connection manager's datagrams, RDMA READ and WRITE, every byte compared.
	check verbs.rping eventually timeout 30 rping -c -a "$B" -C 10 -V
	tell finished
	check verbs.nothing_is_left eventually no_resources
	rmmod rdma_ucm
	check verbs.driver_unloads_and_loads reload
	rmmod erdma
	check verbs.function_level_reset flr
	modprobe erdma
	check verbs.port_is_active_again eventually active
	rmmod erdma
}

# The general services' own pair stays.
no_resources() { rdma resource show erdma_0 | grep -q 'qp 1 cm_id 0 mr 0 ctx 0'; }

reload() {
	local n
	for n in 1 2 3; do
		if ! { rmmod erdma && modprobe erdma && eventually active; }; then
			echo "round $n"
			return 1
		fi
	done
}

flr() {
	local device
	for device in /sys/bus/pci/devices/*; do
		[ "$(cat "$device/device")" = 0x107f ] || continue
		is flr cat "$device/reset_method" && echo 1 >"$device/reset"
		return
	done
	echo 'there is no such device'
	return 1
}

iwarp_b() {
	up "$B"
	modprobe -a rdma_ucm smc_rs
	echo 1 >/proc/sys/net/smc/tcp2smc
	redis-server --bind "$B" --protected-mode no --save '' >/dev/null &
	timeout 120 rping -s -a "$B" -C 10 >/dev/null &
	[ "$(hear)" = finished ]
	kill %1
	wait %1
	rmmod smc_rs
}

iwarp_a() {
	up "$A"
	check iwarp.node_is_an_rnic is '4: RNIC' cat "$adapter/node_type"
	modprobe -a rdma_ucm smc_rs
	# The driver's own connection management: MPA over TCP, then the adapter has the connection.
	check iwarp.rping eventually timeout 30 rping -c -a "$B" -C 10 -V
	echo 1 >/proc/sys/net/smc/tcp2smc
	check iwarp.connections_work eventually redis-cli -h "$B" ping
	echo 0 >/proc/sys/net/smc/tcp2smc
	check iwarp.connections_fell_back fell_back NOSMCRDEV
	tell finished
	check iwarp.module_unloads rmmod smc_rs
}

fell_back() { # REASON
	smcr -d stats >/tmp/stats
	if ! { grep -q "$1" /tmp/stats && grep -Eq 'SMC connections +0 ' /tmp/stats; }; then
		cat /tmp/stats
		return 1
	fi
}

faults_b() {
	up "$B"
	modprobe smc_rs
	eventually has_gid
	echo 1 >/proc/sys/net/smc/tcp2smc
	redis-server --bind "$B" --protected-mode no --save '' >/dev/null &
	[ "$(hear)" = finished ]
	kill %1
	wait %1
	echo 0 >/proc/sys/net/smc/tcp2smc
	sleep 1
	timeout 60 rmmod smc_rs
}

two_up() { # NUMBER
	up "10.9.0.$1"
	ip addr add "10.9.1.$1/24" dev eth1
	ip link set eth1 up
	eventually test -e /sys/class/infiniband/erdma_1
	modprobe smc_rs
	eventually has_gid
	adapter=/sys/class/infiniband/erdma_1 eventually has_gid
	echo 1 >/proc/sys/net/smc/tcp2smc
}

two_b() {
	two_up 2
	redis-server --bind "$B" 10.9.1.2 --protected-mode no --save '' >/dev/null &
	[ "$(hear)" = finished ]
	kill %1
	wait %1
	sleep 1
	timeout 60 rmmod smc_rs
}

two_a() {
	two_up 1
	make_value
	check two.first_adapter eventually by_rdma
	# The same to the other address: the other adapter carries it, and the first one nothing.
	check two.second_adapter eventually second_alone
	echo 0 >/proc/sys/net/smc/tcp2smc
	tell finished
	check two.module_unloads timeout 60 rmmod smc_rs
}

second_alone() {
	local before
	before=$(sent)
	B=10.9.1.2 adapter=/sys/class/infiniband/erdma_1 by_rdma || return 1
	! more_than "$before" || { echo "$(($(sent) - before)) bytes went by the first adapter"; return 1; }
}

make_value() { head -c 100000 /dev/urandom | od -An -v -tx1 >/tmp/value; }
sent() { cat "$adapter/ports/1/hw_counters/tx_bytes_cnt"; }
more_than() { [ "$(sent)" -gt "$1" ]; }

# A value goes there and back, whatever by.
echoes() {
	local back
	timeout 60 redis-cli -h "$B" -x set value </tmp/value >/dev/null || return 1
	back=$(timeout 60 redis-cli -h "$B" --raw get value | head -c "$(stat -c %s /tmp/value)" | sha256sum)
	[ "$back" = "$(sha256sum </tmp/value)" ] || { echo "what comes back differs"; return 1; }
}

by_rdma() {
	local before
	before=$(sent)
	echoes || return 1
	more_than $((before + 200000)) || { echo "only $(($(sent) - before)) bytes went by RDMA"; return 1; }
}

by_tcp() {
	local before
	before=$(sent)
	echoes || return 1
	! more_than $((before + 100000)) || { echo "$(($(sent) - before)) bytes went by RDMA"; return 1; }
}

# The emulator's control socket is a serial port of this machine.
order() { # JSON
	local answer
	echo "$1" >&9
	read -r -t 30 answer <&9 || { echo "no answer to $1"; return 1; }
	[[ $answer == *'"ok":true'* ]] || { echo "$1: $answer"; return 1; }
}

# A fault comes while 8 connections are busy; afterwards new connections go by RDMA again.
under_traffic() { # NAME CLIENTS ORDER [ORDER-THAT-ENDS-IT]
	local name=$1 clients=$2 job before
	before=$(sent)
	redis-benchmark -h "$B" -t set -c "$clients" -n 10000000 -q >/dev/null 2>&1 &
	job=$!
	check "$name.there_is_traffic" eventually more_than $((before + 20000))
	check "$name.ordered" order "$3"
	sleep 1
	[ -z "${4:-}" ] || check "$name.ended" order "$4"
	kill "$job" 2>/dev/null
	wait "$job" 2>/dev/null
	[ "$name" = faults.die ] || check "$name.connections_go_by_rdma_again" eventually by_rdma
}

faults_a() {
	up "$A"
	modprobe smc_rs
	eventually has_gid
	exec 9<>/dev/virtio-ports/control
	make_value
	echo 1 >/proc/sys/net/smc/tcp2smc
	check faults.connections_go_by_rdma eventually by_rdma
	under_traffic faults.not_ready 8 '{"do":"not_ready","device":1,"ms":300}'
	under_traffic faults.delay_completions 8 '{"do":"delay_completions","device":0,"ms":20}' '{"do":"heal","device":0}'
	under_traffic faults.hang_commands 8 '{"do":"hang_commands","device":0,"on":true}' '{"do":"heal","device":0}'
	under_traffic faults.qp_fatal 8 '{"do":"qp_fatal","device":0}'
	under_traffic faults.qp_fatal_of_the_peer 8 '{"do":"qp_fatal","device":1}'
	under_traffic faults.revoke_key 8 '{"do":"revoke_key","device":1}'
	under_traffic faults.port_down 8 '{"do":"port","device":1,"up":false}' '{"do":"heal","device":1}'
	under_traffic faults.refuse_registrations 8 '{"do":"refuse_registrations","device":0,"count":3}' '{"do":"heal","device":0}'
	under_traffic faults.lose_interrupts 8 '{"do":"lose_interrupts","device":0,"count":1}' '{"do":"heal","device":0}'
	# No pairs any more: what is new goes by TCP, until there are some.
	check faults.limit.ordered order '{"do":"limit","device":0,"qps":1}'
	order '{"do":"qp_fatal","device":0}'
	check faults.limit.connections_fall_back eventually by_tcp
	check faults.limit.ended order '{"do":"heal","device":0}'
	check faults.limit.connections_go_by_rdma_again eventually by_rdma
	# The device falls off its bus under many connections.
	under_traffic faults.die 100 '{"do":"die","device":0}'
	check faults.die.connections_go_by_tcp eventually echoes
	echo 0 >/proc/sys/net/smc/tcp2smc
	tell finished
	check faults.die.module_unloads timeout 60 rmmod smc_rs
}
