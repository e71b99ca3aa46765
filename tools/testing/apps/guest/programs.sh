# shellcheck shell=bash
# The cases; each is a function, named in ../cases.
# Functions are called by name:
# shellcheck disable=SC2317

# --- CPython ----------------------------------------------------------------------------------

# Each test is a result. With --timeout, CPython's own limits grow: the machine is emulated.
cpython() { # TEST...
	ip link set lo up
	python3 -m test -v -u network,cpu -i "*UDPLITE*" --timeout 3600 --junit-xml /run/case/junit.xml "$@"
	python3 /rig/junit.py /run/case/junit.xml >>"$RESULTS"
}

# --- Redis ------------------------------------------------------------------------------------

redis=(redis-server --port 6379 --protected-mode no --save '' --appendonly no --dir /run/case --enable-debug-command yes)
redis_b=("${redis[@]}" --bind 10.9.0.2)
redis_a=("${redis[@]}" --bind 10.9.0.1 --replicaof 10.9.0.2 6379)
cli() { on_a redis-cli -h 10.9.0.2 "$@"; }

filled_redis() {
	serve 6379 "${redis_b[@]}"
	check fill on_a redis-benchmark -h 10.9.0.2 -q -t set -r 3000 -n 3000 -d 700 -c 8 -P 8
}

# Requests in pipelines; Redis itself counts what has arrived.
redis_pipeline() {
	serve 6379 "${redis_b[@]}"
	check benchmark on_a redis-benchmark -h 10.9.0.2 -q -t set,get,incr,lpush,lrange_100,mset -n 3200 -c 16 -P 16 -d 100
	same incremented 3200 "$(cli get counter:__rand_int__)"
	# Whole pipelines are sent: 3200 is a multiple of 16. Once for itself, once as what lrange_100 reads.
	same pushed 6400 "$(cli llen mylist)"
	check large_values on_a redis-benchmark -h 10.9.0.2 -q -t set,get -n 40 -c 4 -P 4 -d 300000
	same value_length 300000 "$(cli strlen key:__rand_int__)"
	cli --no-raw info commandstats | grep -E 'cmdstat_(set|get|incr|lpush)'
}

redis_pubsub() {
	local i messages=500
	serve 6379 "${redis_b[@]}"
	for i in 1 2 3 4; do
		on_a timeout 120 redis-cli -h 10.9.0.2 subscribe news >"received.$i" &
	done
	subscribers() { [ "$(cli pubsub numsub news | tail -n 1)" = "$1" ]; }
	await subscribed subscribers 4
	for ((i = 0; i < messages; i++)); do echo "publish news message-$i-$((i * i))"; done >commands
	cli <commands >answers
	# Each publication reached all four.
	same published "$messages" "$(grep -cx 4 answers)"
	seq 0 $((messages - 1)) | awk '{ print "message-" $1 "-" $1 * $1 }' >expected
	for i in 1 2 3 4; do
		complete() { grep -q "message-$((messages - 1))-" "received.$i"; }
		await "complete_$i" complete
		same "received_$i" "$(sum expected)" "$(grep -o 'message-.*' "received.$i" | sha256sum | cut -d' ' -f1)"
	done
}

redis_replication() {
	replica() { on_b redis-cli -h 10.9.0.1 "$@"; }
	linked() { replica info replication | grep -q 'master_link_status:up'; }
	filled_redis
	serve_on on_a 6379 "${redis_a[@]}"
	await linked linked
	# What came as a whole, and then what came command by command.
	same digest_after_sync "$(cli debug digest)" "$(replica debug digest)"
	check more on_a redis-benchmark -h 10.9.0.2 -q -t set,incr,lpush,sadd,hset -r 2000 -n 2000 -d 300 -c 8 -P 8
	same acknowledged 1 "$(cli wait 1 60000)"
	same digest_after_stream "$(cli debug digest)" "$(replica debug digest)"
	same is_large ok "$([ "$(replica dbsize)" -gt 2000 ] && echo ok)"
	# The connection breaks, and goes on from where it was.
	cli client kill type replica
	check even_more on_a redis-benchmark -h 10.9.0.2 -q -t set -r 2000 -n 500 -d 300 -c 4 -P 8
	await linked_again linked
	same acknowledged_again 1 "$(cli wait 1 60000)"
	same digest_after_break "$(cli debug digest)" "$(replica debug digest)"
}

# --- nginx, curl, wrk, haproxy ----------------------------------------------------------------

# nginx HOST ADDRESS: files by sendfile, keep-alive, TLS on 443.
nginx_on() {
	mkdir -p www
	[ -e www/large ] || {
		content www/large 12
		content www/small 1
		truncate -s 10000 www/small
	}
	[ -e key.pem ] || openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=b -keyout key.pem -out cert.pem 2>/dev/null
	cat >nginx.conf <<-END
		user root;
		worker_processes 2;
		pid /run/case/nginx.pid;
		error_log stderr;
		daemon off;
		events { worker_connections 256; }
		http {
		    access_log off;
		    sendfile on;
		    tcp_nopush on;
		    keepalive_timeout 60;
		    keepalive_requests 100000;
		    ssl_certificate /run/case/cert.pem;
		    ssl_certificate_key /run/case/key.pem;
		    server {
		        listen $2:80;
		        listen $2:443 ssl;
		        root /run/case/www;
		        client_max_body_size 100m;
		    }
		}
	END
	mkdir -p /var/lib/nginx /var/log/nginx
	serve_on "$1" 443 nginx -c /run/case/nginx.conf
}

fetch() { on_a curl -sS --fail --max-time 300 "$@"; }

curl_nginx() {
	nginx_on on_b 10.9.0.2
	check large fetch -o got http://b/large
	same large_content "$(sum www/large)" "$(sum got)"
	check tls fetch --cacert cert.pem -o got https://b/large
	same tls_content "$(sum www/large)" "$(sum got)"
	check range fetch -r 1000000-2999999 -o got http://b/large
	same range_content "$(tail -c +1000001 www/large | head -c 2000000 | sha256sum | cut -d' ' -f1)" "$(sum got)"
	# Fifty files by one connection.
	same keep_alive '50 1' "$(fetch -o /dev/null -w '%{num_connects}\n' 'http://b/small?[1-50]' | awk '{ n += $1 } END { print NR, n }')"
	# Thirty at once.
	check parallel fetch -Z --parallel-max 30 -o '/run/case/got.#1' 'http://b/small?[1-30]'
	same parallel_content 1 "$(sha256sum www/small got.* | cut -d' ' -f1 | sort -u | wc -l)"
	# A body that nobody wants: 405, with what was sent read or not.
	same refused_body 405 "$(on_a curl -sS --max-time 100 -o /dev/null -w '%{http_code}' --data-binary @www/large http://b/small)"
	check slow fetch --limit-rate 6M -o got http://b/large
	same slow_content "$(sum www/large)" "$(sum got)"
	same missing 404 "$(on_a curl -sS --max-time 100 -o /dev/null -w '%{http_code}' http://b/nothing)"
	same nobody_there 7 "$(on_a curl -sS http://b:81/ 2>/dev/null; echo $?)"
}

# wrk says nothing of errors unless there are some.
load() { # NAME ARGUMENT...
	local name=$1
	shift
	on_a wrk -t 2 -c 16 -d 4s --timeout 60s "$@" | tee wrk.out
	if grep -qE 'Socket errors|Non-2xx' wrk.out; then
		result "$name" "failed: $(grep -E 'Socket errors|Non-2xx' wrk.out)"
	else
		same "$name" ok "$([ "$(awk '/requests in/ { print $1 }' wrk.out)" -gt 0 ] && echo ok)"
	fi
}

wrk_nginx() {
	nginx_on on_b 10.9.0.2
	load keep_alive http://10.9.0.2/small
	load one_request_each -H 'Connection: close' http://10.9.0.2/small
	# Later arguments count.
	load large -c 2 -d 8s http://10.9.0.2/large
	load tls https://10.9.0.2/small
}

# Client and web server on A, haproxy between them on B.
haproxy_middle() {
	nginx_on on_a 10.9.0.1
	cat >haproxy.cfg <<-END
		global
		    maxconn 500
		defaults
		    timeout connect 60s
		    timeout client 120s
		    timeout server 120s
		    option splice-auto
		frontend web
		    mode http
		    bind 10.9.0.2:8080
		    default_backend web
		backend web
		    mode http
		    server a 10.9.0.1:80 check
		frontend stream
		    mode tcp
		    bind 10.9.0.2:8081
		    default_backend stream
		backend stream
		    mode tcp
		    server a 10.9.0.1:80
	END
	serve 8080 haproxy -db -f haproxy.cfg
	local port
	for port in 8080 8081; do
		check "fetch_$port" fetch -o got "http://b:$port/large"
		same "content_$port" "$(sum www/large)" "$(sum got)"
		load "keep_alive_$port" "http://10.9.0.2:$port/small"
		load "one_request_each_$port" -H 'Connection: close' "http://10.9.0.2:$port/small"
	done
}

# --- OpenSSH ----------------------------------------------------------------------------------

ssh_scp() {
	local options
	mkdir -p /root/.ssh
	ssh-keygen -q -t ed25519 -N '' -f key
	ssh-keygen -q -t ed25519 -N '' -f host
	cp key.pub /root/.ssh/authorized_keys
	chmod 700 /root/.ssh
	cat >sshd.conf <<-END
		ListenAddress 10.9.0.2
		Port 22
		HostKey /run/case/host
		PermitRootLogin yes
		StrictModes no
		UsePAM no
		PidFile none
		Subsystem sftp internal-sftp
	END
	serve 22 /usr/sbin/sshd -D -e -f /run/case/sshd.conf
	printf 'b %s\n' "$(cut -d' ' -f1,2 host.pub)" >known
	options=(-i key -o UserKnownHostsFile=/run/case/known -o StrictHostKeyChecking=yes -o BatchMode=yes)
	remote() { on_a ssh "${options[@]}" "$@"; }
	content file 4
	same command 'hello from here' "$(remote b echo hello from here)"
	same exit_code 42 "$(remote b exit 42; echo $?)"
	same through "$(sum file)" "$(remote b cat <file | sha256sum | cut -d' ' -f1)"
	check scp_to on_a scp -q "${options[@]}" file b:/run/case/sent
	same scp_to_content "$(sum file)" "$(sum sent)"
	check scp_from on_a scp -q "${options[@]}" b:/run/case/file got
	same scp_from_content "$(sum file)" "$(sum got)"
	printf 'put file by-sftp\nget file back\n' >commands.sftp
	check sftp on_a sftp -q "${options[@]}" -b commands.sftp b:/run/case
	same sftp_content "$(sum file)" "$(sum back)"
	# A port of A leads to sshd on B: one connection within another.
	on_a ssh "${options[@]}" -N -L 10.9.0.1:2222:10.9.0.2:22 b &
	forwarding() { listens on_a 2222; }
	await forwarding forwarding
	printf '[a]:2222 %s\n' "$(cut -d' ' -f1,2 host.pub)" >>known
	same forwarded "$(sum file)" "$(remote -p 2222 a cat /run/case/file | sha256sum | cut -d' ' -f1)"
}

# --- memcached --------------------------------------------------------------------------------

# memccapable goes through both protocols, command by command; memcslap sets and gets under load and compares.
memcached_tools() {
	serve 11211 memcached -u root -l 10.9.0.2 -U 0 -m 64 -t 2
	on_a timeout 300 memccapable -h 10.9.0.2 -p 11211 | tee capable.out
	# "ascii version    [pass]"
	sed -nE 's/^((ascii|binary) .*[^ ]) *\[(pass|FAIL)\].*/\1\t\3/p' capable.out >capable
	same understood yes "$([ -s capable ] && echo yes)"
	while IFS=$'\t' read -r name verdict; do
		same "memccapable $name" pass "$verdict"
	done <capable
	check memcslap_set on_a timeout 200 memcslap --servers=10.9.0.2:11211 --concurrency=8 --execute-number=500 --initial-load=500 --test=set
	check memcslap_get on_a timeout 200 memcslap --servers=10.9.0.2:11211 --concurrency=8 --execute-number=500 --initial-load=500 --test=get
	check memcslap_mget on_a timeout 200 memcslap --servers=10.9.0.2:11211 --concurrency=8 --execute-number=200 --initial-load=500 --test=mget
	content file 1
	truncate -s 900000 file
	check put on_a memccp --servers=10.9.0.2:11211 file
	on_a memccat --servers=10.9.0.2:11211 --file=back file
	same content "$(sum file)" "$(sum back)"
}

# --- PostgreSQL -------------------------------------------------------------------------------

postgres_pgbench() {
	local bin
	bin=$(echo /usr/lib/postgresql/*/bin)
	as_postgres() { setpriv --reuid postgres --regid postgres --clear-groups "$@"; }
	query() { on_a psql -X -A -t -h 10.9.0.2 -U postgres "$@"; }
	mkdir -p data /run/postgresql
	chown postgres data /run/postgresql /run/case
	check initdb as_postgres "$bin/initdb" -D /run/case/data -A trust -N
	echo 'host all all 10.9.0.0/24 trust' >>data/pg_hba.conf
	serve 5432 setpriv --reuid postgres --regid postgres --clear-groups "$bin/postgres" -D /run/case/data -c listen_addresses=10.9.0.2 -c fsync=off
	check initialise on_a pgbench -h 10.9.0.2 -U postgres -i -s 1 postgres
	same accounts 100000 "$(query -c 'select count(*) from pgbench_accounts' postgres)"
	check read_write on_a pgbench -h 10.9.0.2 -U postgres -c 4 -j 2 -t 100 -n postgres
	same transactions 400 "$(query -c 'select count(*) from pgbench_history' postgres)"
	# What each table has gained is the same.
	same sums t "$(query -c 'select (select sum(abalance) from pgbench_accounts) = (select sum(delta) from pgbench_history) and (select sum(bbalance) from pgbench_branches) = (select sum(delta) from pgbench_history)' postgres)"
	check read_only on_a pgbench -h 10.9.0.2 -U postgres -S -M prepared -c 4 -j 2 -t 300 -n postgres
	check pipeline on_a pgbench -h 10.9.0.2 -U postgres -M extended -C -c 2 -t 20 -n postgres
	# All accounts through the network twice: out by COPY, and in again elsewhere.
	check copy_out query -c '\copy (select * from pgbench_accounts order by aid) to accounts' postgres
	check copy_in query -c 'create table again (like pgbench_accounts)' -c '\copy again from accounts' postgres
	same copied 0 "$(query -c 'select count(*) from (select * from again except select * from pgbench_accounts) as x' postgres)"
	# A query that is cancelled by a connection of its own.
	same cancelled 1 "$(on_a timeout -s INT 3 psql -X -h 10.9.0.2 -U postgres -c 'select pg_sleep(600)' postgres 2>&1 | grep -c 'canceling statement due to user request')"
}

# --- benchmarks -------------------------------------------------------------------------------

iperf() {
	client() { on_a timeout 200 iperf3 -4 -c 10.9.0.2 -t 3 "$@"; }
	serve 5201 iperf3 -s -4 -B 10.9.0.2
	check upload client
	check download client -R
	check both_ways client --bidir
	check four client -P 4
	check small_writes client -l 100 -N
	check zero_copy client -Z
	check limited client -b 8M
}

netperf_all() {
	local test
	serve 12865 netserver -D -4 -L 10.9.0.2
	for test in TCP_STREAM TCP_MAERTS TCP_SENDFILE TCP_RR TCP_CRR TCP_CC; do
		check "$test" on_a timeout 200 netperf -4 -H 10.9.0.2 -L 10.9.0.1 -t "$test" -l 3 -F /usr/bin/python3
	done
	check TCP_RR_large on_a timeout 200 netperf -4 -H 10.9.0.2 -t TCP_RR -l 3 -- -r 100000,100000
}

qperf_tcp() {
	serve 19765 qperf
	check bandwidth on_a timeout 200 qperf -t 3 10.9.0.2 tcp_bw
	check latency on_a timeout 200 qperf -t 3 10.9.0.2 tcp_lat
	check sizes on_a timeout 300 qperf -t 1 -oo msg_size:1:64K:*4 10.9.0.2 tcp_bw tcp_lat
}

# With --data-integrity every answer is compared with what was asked. sockperf's exit code is 0 whatever happened.
measured() { # NAME ARGUMENT...
	local name=$1
	shift
	on_a timeout 200 sockperf "$@" --tcp -i 10.9.0.2 -p 11111 -t 3 2>&1 | tee sockperf.out
	same "$name" ok "$(grep -qE 'SentMessages=[1-9]|Total of [1-9]' sockperf.out && ! grep -qiE 'error|mismatch|corrupt' sockperf.out && echo ok)"
}

sockperf_checked() {
	local order='# duplicated messages = 0; # out-of-order messages = 0'
	serve 11111 sockperf server --tcp -i 10.9.0.2 -p 11111
	measured ping_pong ping-pong --data-integrity
	measured ping_pong_large ping-pong -m 60000 --data-integrity
	same nothing_lost 1 "$(grep -c "# dropped messages = 0; $order" sockperf.out)"
	measured under_load under-load --mps 500 --reply-every 10
	# What is still under way at the end counts as dropped.
	same in_order_under_load 1 "$(grep -c "$order" sockperf.out)"
	measured throughput throughput -m 1000
}

# stress-ng's network stressors, with --verify; they talk to themselves over loopback.
stress() { # STRESSOR OPS [OPTION...]
	local name=$1 ops=$2
	shift 2
	check "$name$(printf '%s' "$*" | tr -d ' ')" timeout 120 stress-ng --verify --metrics-brief "--$name" 2 "--$name-ops" "$ops" "$@"
}

stress_ng() {
	local way
	for way in send sendmsg; do stress sock 60 --sock-opts "$way"; done
	stress sock 20 --sock-opts sendmmsg
	stress sock 30 --sock-nodelay
	stress sock 30 --sock-zerocopy
	stress sockmany 300
	stress sockabuse 200
	stress sockfd 200
	stress epoll 300
	stress sendfile 20
	stress poll 200
}

# --- languages with a network library of their own --------------------------------------------

# The programs print "NAME <tab> RESULT" lines.
go_net() {
	on_b /opt/apps/net server 10.9.0.2 &
	await server listens on_b 9003
	on_a timeout 300 /opt/apps/net client 10.9.0.2 >>"$RESULTS"
}

node_http() {
	on_b node /rig/programs/http.mjs server 10.9.0.2 &
	await server listens on_b 9002
	on_a timeout 300 node /rig/programs/http.mjs client 10.9.0.2 >>"$RESULTS"
}

java_socket() {
	on_b java -cp /opt/apps Net server 10.9.0.2 &
	await server listens on_b 9002
	on_a timeout 300 java -cp /opt/apps Net client 10.9.0.2 >>"$RESULTS"
}
