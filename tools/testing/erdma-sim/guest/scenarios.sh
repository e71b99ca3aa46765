# shellcheck shell=bash
# The machines' parts of erdma-sim/test; runs in the test machine, as `. /rig/erdma/scenarios.sh; NAME_a`.
# A result is a line 'ok NAME' or 'not ok NAME: why'; the host counts them.

A=10.9.0.1 B=10.9.0.2
adapter=/sys/class/infiniband/erdma_0 second=/sys/class/infiniband/erdma_1

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
no_resources() { rdma resource show "${adapter##*/}" | grep -q 'qp 1 cm_id 0 mr 0 ctx 0'; }

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
	check iwarp.ports_are_reserved ports_are taken
	# The driver's own connection management: MPA over TCP, then the adapter has the connection.
	check iwarp.rping eventually timeout 30 rping -c -a "$B" -C 10 -V
	echo 1 >/proc/sys/net/smc/tcp2smc
	check iwarp.connections_work eventually redis-cli -h "$B" ping
	echo 0 >/proc/sys/net/smc/tcp2smc
	check iwarp.connections_fell_back fell_back NOSMCRDEV
	tell finished
	check iwarp.module_unloads rmmod smc_rs
	check iwarp.ports_are_free_again ports_are free
}

# The first and the last of those that the adapter sets its queue pairs up with.
ports_are() { # taken | free
	local port now
	for port in 33800 33815; do
		now=taken
		# Who can listen does so until the time is up.
		timeout 1 socat -u "TCP-LISTEN:$port,reuseaddr" - >/dev/null 2>&1 </dev/null || [ $? != 124 ] || now=free
		[ "$now" = "$1" ] || { echo "port $port is $now"; return 1; }
	done
}

fell_back() { # REASON
	smcr -d stats >/tmp/stats
	if ! { grep -q "$1" /tmp/stats && grep -Eq 'SMC connections +0 ' /tmp/stats; }; then
		cat /tmp/stats
		return 1
	fi
}

smc_up() { # ADDRESS
	up "$1"
	modprobe smc_rs
	eventually has_gid
	make_value
	echo 1 >/proc/sys/net/smc/tcp2smc
}

serve() { redis-server --bind "$@" --protected-mode no --save '' >/dev/null & }

# The module goes, as soon as what is still open has ended.
smc_off() {
	echo 0 >/proc/sys/net/smc/tcp2smc
	eventually rmmod smc_rs
}

# The servers end, and with them what they had open.
smc_down() {
	# shellcheck disable=SC2046
	kill $(jobs -p)
	wait
	smc_off
}

faults_b() {
	smc_up "$B"
	serve "$B"
	modprobe rdma_ucm
	timeout 1200 rping -s -P -a "$B" >/dev/null 2>&1 &
	[ "$(hear)" = finished ]
	smc_down
}

two_up() { # NUMBER
	up "10.9.0.$1"
	ip addr add "10.9.1.$1/24" dev eth1
	ip link set eth1 up
	eventually test -e "$second"
	modprobe smc_rs
	eventually has_gid
	adapter=$second eventually has_gid
	make_value
	echo 1 >/proc/sys/net/smc/tcp2smc
}

two_b() {
	two_up 2
	serve "$B" 10.9.1.2
	[ "$(hear)" = finished ]
	smc_down
}

two_a() {
	two_up 1
	check two.first_adapter eventually by_rdma
	# The same to the other address: the other adapter carries it, and the first one nothing.
	check two.second_adapter eventually second_alone
	echo 0 >/proc/sys/net/smc/tcp2smc
	tell finished
	check two.module_unloads smc_off
}

second_alone() {
	local before
	before=$(sent)
	B=10.9.1.2 adapter=$second by_rdma || return 1
	! more_than "$before" || { echo "$(($(sent) - before)) bytes went by the first adapter"; return 1; }
}

make_value() { head -c 100000 /dev/urandom | od -An -v -tx1 >/tmp/value; }
# Bytes that the adapter has sent; of several, together.
sent() {
	local file all=0
	for file in $adapter/ports/1/hw_counters/tx_bytes_cnt; do all=$((all + $(cat "$file"))); done
	echo "$all"
}
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

# The emulator's control socket is a serial port of machine A.
control() { exec 9<>/dev/virtio-ports/control; }
order() { # JSON
	local answer
	echo "$1" >&9
	read -r -t 30 answer <&9 || { echo "no answer to $1"; return 1; }
	[[ $answer == *'"ok":true'* ]] || { echo "$1: $answer"; return 1; }
}

# Connections of programs that do not mind how they end; NAME.there_is_traffic says that they got going.
traffic() { # NAME CLIENTS
	local before
	before=$(sent)
	redis-benchmark -h "$B" -t set -c "$2" -n 10000000 -q >/dev/null 2>&1 &
	busy=$!
	check "$1.there_is_traffic" eventually more_than $((before + 20000))
}
no_traffic() {
	kill "$busy" 2>/dev/null
	wait "$busy" 2>/dev/null
}

# A fault comes while connections are busy; afterwards new connections go by RDMA again.
under_traffic() { # NAME CLIENTS ORDER [ORDER-THAT-ENDS-IT]
	local name=$1
	traffic "$name" "$2"
	check "$name.ordered" order "$3"
	sleep 1
	[ -z "${4:-}" ] || check "$name.ended" order "$4"
	no_traffic
	check "$name.connections_go_by_rdma_again" eventually by_rdma
}

# Of something there is no more: once the link group is gone, what is new goes by TCP.
without() { # NAME ORDER
	traffic "$1" 8
	check "$1.ordered" order "$2"
	check "$1.link_group_goes" order '{"do":"qp_fatal","device":0}'
	sleep 1
	no_traffic
	check "$1.connections_fall_back" eventually by_tcp
	check "$1.ended" order '{"do":"heal","device":0}'
	check "$1.connections_go_by_rdma_again" eventually by_rdma
}

# Completions that never come, of which the log tells; nothing waits for ever for what they would have told.
losses() { dmesg | grep -c 'the RDMA device has lost a completion'; }
more_losses_than() { [ "$(losses)" -gt "$1" ] || { echo "the log tells of $(losses)"; return 1; }; }
drop() { # DEVICE COUNT OF
	order "{\"do\":\"drop_completions\",\"device\":$1,\"count\":$2,\"of\":\"$3\"}"
}

lost() { # NAME DEVICE OF
	local name=$1 before groups
	before=$(losses) groups=$(group_id)
	traffic "$name" 8
	check "$name.ordered" drop "$2" 1 "$3"
	if [ "$2" = 0 ]; then
		check "$name.is_noticed" eventually more_losses_than "$before"
	else
		check "$name.is_noticed" eventually group_is_not "$groups"
	fi
	no_traffic
	check "$name.connections_go_by_rdma_again" eventually by_rdma
}

# Of the link group; of none, nothing.
group_id() { smcr linkgroup | awk '$1 ~ /^[0-9a-f]+$/ { print $1; exit }'; }
group_is_not() { [ "$(group_id)" != "$1" ] || { echo "it is still $1"; return 1; }; }

# A connection on which there is nothing but what is sent here.
asks() {
	local answer=''
	echo PING >&8 && read -r -t 30 answer <&8
	[[ $answer == +PONG* ]] || { echo "the answer is '$answer'"; return 1; }
}
# It ends, which is not the same as that no answer comes in time.
ends() {
	local answer rc=0
	read -r -t 30 answer <&8 || rc=$?
	[ "$rc" = 1 ] || { echo "read says $rc, and '$answer'"; return 1; }
}

# The last one before a silence: nothing that comes after it proves the loss.
lost_last() { # NAME COUNT OF
	local before
	before=$(losses)
	if [ "$3" = receives ]; then
		# Of a link that begins now: it is tested when it was idle for so many seconds.
		echo 2 >/proc/sys/net/smc/smcr_testlink_time
		check "$1.link_group_goes" order '{"do":"qp_fatal","device":0}'
		check "$1.another_one_comes" eventually by_rdma
		echo 30 >/proc/sys/net/smc/smcr_testlink_time
	fi
	exec 8<>"/dev/tcp/$B/6379"
	check "$1.connects" asks
	check "$1.ordered" drop 0 "$2" "$3"
	if [ "$3" = sends ]; then check "$1.answer_comes" asks; else echo PING >&8; fi
	check "$1.connection_ends" ends
	check "$1.is_noticed" more_losses_than "$before"
	exec 8>&-
	check "$1.ended" order '{"do":"heal","device":0}'
	check "$1.connections_go_by_rdma_again" eventually by_rdma
}

# Nothing of smc_rs needs a handle; what needs one shows that there is none.
without_handles() {
	local name=faults.no_more_handles
	traffic "$name" 8
	check "$name.ordered" order '{"do":"limit","device":0,"handles":0}'
	check "$name.there_is_none" fails timeout 30 rping -c -a "$B" -C 1
	check "$name.link_group_goes" order '{"do":"qp_fatal","device":0}'
	no_traffic
	check "$name.connections_go_by_rdma" eventually by_rdma
	check "$name.ended" order '{"do":"heal","device":0}'
	check "$name.there_are_some_again" eventually timeout 30 rping -c -a "$B" -C 1
}
fails() { ! "$@" || { echo "'$*' succeeds"; return 1; }; }

gid_index() { grep -l '^0000:0000:0000:0000:0000:ffff:' "$adapter"/ports/1/gids/{0,1} | head -n 1 | sed 's|.*/||'; }

without_gid() {
	local name=faults.remove_gid
	traffic "$name" 8
	check "$name.ordered" order "{\"do\":\"remove_gid\",\"device\":0,\"index\":$(gid_index)}"
	check "$name.connections_fall_back" eventually by_tcp
	no_traffic
	# The kernel gives it to the device again.
	ip addr del "$A/24" dev eth0
	ip addr add "$A/24" dev eth0
	check "$name.connections_go_by_rdma_again" eventually by_rdma
}

# The device falls off its bus under many connections.
die() {
	traffic faults.die 100
	check faults.die.has_a_hundred_connections eventually carries 100
	check faults.die.ordered order '{"do":"die","device":0}'
	# The program ends when it hears of an error.
	check faults.die.program_hears_of_it eventually has_ended "$busy"
	no_traffic
	check faults.die.no_connection_is_left eventually carries 0
	check faults.die.connections_go_by_tcp eventually echoes
}

# So many connections go by RDMA.
carries() { is "$1" count; }
count() { smcss -R | grep -c SMCR; }
has_ended() { [ ! -e "/proc/$1" ] || grep -q '^State:.*zombie' "/proc/$1/status" || { echo "it runs"; return 1; }; }

faults_a() {
	smc_up "$A"
	modprobe rdma_ucm
	control
	check faults.connections_go_by_rdma eventually by_rdma
	under_traffic faults.not_ready 8 '{"do":"not_ready","device":1,"ms":300}'
	under_traffic faults.delay_completions 8 '{"do":"delay_completions","device":0,"ms":20}' '{"do":"heal","device":0}'
	under_traffic faults.drop_completions 8 '{"do":"drop_completions","device":0,"count":5}'
	under_traffic faults.drop_completions_of_the_peer 8 '{"do":"drop_completions","device":1,"count":5}'
	lost faults.lost_receives 0 receives
	lost faults.lost_receives_of_the_peer 1 receives
	lost faults.lost_sends 0 sends
	lost faults.lost_sends_of_the_peer 1 sends
	lost_last faults.lost_last_receive 1 receives
	lost_last faults.lost_last_send 1 sends
	lost_last faults.lost_every_send 1000000 sends
	under_traffic faults.hang_commands 8 '{"do":"hang_commands","device":0,"on":true}' '{"do":"heal","device":0}'
	under_traffic faults.qp_fatal 8 '{"do":"qp_fatal","device":0}'
	under_traffic faults.qp_fatal_of_the_peer 8 '{"do":"qp_fatal","device":1}'
	under_traffic faults.cq_error 8 '{"do":"cq_error","device":0}'
	under_traffic faults.cq_error_of_the_peer 8 '{"do":"cq_error","device":1}'
	under_traffic faults.revoke_key 8 '{"do":"revoke_key","device":1}'
	under_traffic faults.port_down 8 '{"do":"port","device":1,"up":false}' '{"do":"heal","device":1}'
	under_traffic faults.refuse_registrations 8 '{"do":"refuse_registrations","device":0,"count":3}' '{"do":"heal","device":0}'
	under_traffic faults.lose_interrupts 8 '{"do":"lose_interrupts","device":0,"count":1}' '{"do":"heal","device":0}'
	without_gid
	without faults.no_more_qps '{"do":"limit","device":0,"qps":1}'
	without faults.no_more_cqs '{"do":"limit","device":0,"cqs":1}'
	without_handles
	without faults.no_more_regions '{"do":"limit","device":0,"regions":0}'
	die
	tell finished
	check faults.module_unloads smc_off
	check faults.nothing_is_left eventually no_resources
}

# The adapter's process ends: nothing answers any more, on both machines.
crash_b() {
	smc_up "$B"
	serve "$B"
	[ "$(hear)" = finished ]
	smc_down
}

crash_a() {
	smc_up "$A"
	control
	check crash.connections_go_by_rdma eventually by_rdma
	traffic crash 100
	echo '{"do":"exit"}' >&9
	check crash.connections_go_by_tcp eventually echoes
	no_traffic
	tell finished
	check crash.module_unloads smc_off
}

# Modules go while connections are busy.
unload_b() {
	local word
	smc_up "$B"
	serve "$B"
	while word=$(hear) && [ "$word" != finished ]; do
		case $word in
		driver)
			rmmod erdma
			modprobe erdma
			;;
		module)
			# Clients come back all the time.
			smc_down
			modprobe smc_rs
			echo 1 >/proc/sys/net/smc/tcp2smc
			serve "$B"
			;;
		esac
	done
	smc_down
}

unload_a() {
	smc_up "$A"
	check unload.connections_go_by_rdma eventually by_rdma
	traffic unload.in_use 8
	check unload.in_use.refused refused
	before=$(sent)
	check unload.in_use.traffic_goes_on eventually more_than $((before + 100000))
	no_traffic
	check unload.unloads_at_once smc_off
	modprobe smc_rs
	echo 1 >/proc/sys/net/smc/tcp2smc
	check unload.connections_go_by_rdma_again eventually by_rdma
	traffic unload.driver 8
	check unload.driver.unloads timeout 60 rmmod erdma
	check unload.driver.connections_go_by_tcp eventually echoes
	no_traffic
	modprobe erdma
	check unload.driver.connections_go_by_rdma_again eventually by_rdma
	traffic unload.driver_of_the_peer 8
	tell driver
	sleep 2
	no_traffic
	check unload.driver_of_the_peer.connections_go_by_rdma_again eventually by_rdma
	(while :; do redis-benchmark -h "$B" -t set -c 8 -n 1000 -q >/dev/null 2>&1; done) &
	busy=$!
	tell module
	sleep 5
	no_traffic
	check unload.module_of_the_peer.connections_go_by_rdma_again eventually by_rdma
	tell finished
	check unload.module_unloads smc_off
	check unload.nothing_is_left eventually no_resources
}

refused() {
	! rmmod smc_rs 2>/tmp/refusal || { echo 'it was unloaded'; return 1; }
	grep -q 'in use' /tmp/refusal || { cat /tmp/refusal; return 1; }
}

# Two adapters on each machine, at one physical network: what is under way when one goes, goes on by the other.
failover_b() {
	two_up 2
	one_network
	serve "$B"
	socat "TCP-LISTEN:5000,bind=$B,fork,reuseaddr" PIPE &
	[ "$(hear)" = finished ]
	smc_down
}

one_network() {
	smc_pnet -a NET1 -D erdma_0
	smc_pnet -a NET1 -D erdma_1
}

both() { adapter='/sys/class/infiniband/erdma_*'; }
two_links() {
	if ! { smcr linkgroup >/tmp/groups && grep -q ' SYM ' /tmp/groups; }; then
		cat /tmp/groups
		return 1
	fi
}

# 24 MiB there and back, compared.
stream() {
	local back
	back=$(timeout 300 socat -t 120 - "TCP:$B:5000" </tmp/stream | sha256sum)
	[ "$back" = "$(sha256sum </tmp/stream)" ] || { echo "what comes back differs, or not all does"; return 1; }
}

# An adapter goes under connections of which none may fail.
survives() { # NAME ORDER [ORDER-THAT-ENDS-IT]
	local name=$1 before requests streamed
	check "$name.two_links" eventually two_links
	before=$(sent)
	timeout 300 redis-benchmark -h "$B" -t set -c 8 -n 10000 -q >/tmp/requests 2>&1 &
	requests=$!
	stream >/tmp/streamed 2>&1 &
	streamed=$!
	check "$name.there_is_traffic" eventually more_than $((before + 1000000))
	check "$name.ordered" order "$2"
	ended_well "$name.requests_go_on" "$requests" /tmp/requests
	ended_well "$name.no_byte_is_lost" "$streamed" /tmp/streamed
	[ -z "${3:-}" ] || check "$name.ended" order "$3"
}

fails_over() { # NAME DEVICE OF
	local before
	before=$(losses)
	survives "$1" "{\"do\":\"drop_completions\",\"device\":$2,\"count\":1,\"of\":\"$3\"}"
	# Of the other machine's devices the other machine's log tells.
	[ "$2" -gt 1 ] || check "$1.is_noticed" more_losses_than "$before"
}

ended_well() { # NAME JOB OUTPUT
	if wait "$2"; then echo "ok $1"; else echo "not ok $1: $(tail -c 300 "$3" | tr '\r\n' ';;')"; fi
}

failover_a() {
	two_up 1
	one_network
	both
	control
	head -c 24M /dev/urandom >/tmp/stream
	check failover.connections_go_by_rdma eventually by_rdma
	survives failover.port_down '{"do":"port","device":0,"up":false}' '{"do":"heal","device":0}'
	survives failover.port_down_of_the_peer '{"do":"port","device":3,"up":false}' '{"do":"heal","device":3}'
	survives failover.qp_fatal '{"do":"qp_fatal","device":0}'
	survives failover.qp_fatal_of_the_peer '{"do":"qp_fatal","device":3}'
	survives failover.cq_error '{"do":"cq_error","device":1}'
	fails_over failover.lost_sends 0 sends
	fails_over failover.lost_sends_of_the_peer 3 sends
	# What was received and not told of may be gone: a connection goes on or ends.
	check failover.lost_receives.two_links eventually two_links
	lost failover.lost_receives 0 receives
	survives failover.revoke_key '{"do":"revoke_key","device":2}'
	survives failover.lose_interrupts '{"do":"lose_interrupts","device":0,"count":1}' '{"do":"heal","device":0}'
	survives failover.die '{"do":"die","device":0}'
	tell finished
	check failover.module_unloads smc_off
	adapter=$second check failover.nothing_is_left eventually no_resources
}

# What `make test` has time for.
part_b() { failover_b; }
part_a() {
	two_up 1
	one_network
	both
	control
	head -c 24M /dev/urandom >/tmp/stream
	check part.port_is_active eventually active
	check part.connections_go_by_rdma eventually by_rdma
	under_traffic part.refuse_registrations 8 '{"do":"refuse_registrations","device":0,"count":3}' '{"do":"heal","device":0}'
	survives part.port_down '{"do":"port","device":0,"up":false}' '{"do":"heal","device":0}'
	survives part.die '{"do":"die","device":2}'
	tell finished
	check part.module_unloads smc_off
	adapter=$second check part.nothing_is_left eventually no_resources
}
