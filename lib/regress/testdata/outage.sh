#!/bin/sh
# The server is away for an hour, of which each minute takes no longer than it
# must. A sensor sends 20 messages a second all the while, and its client is
# restarted, once well and once not. All 72000 arrive, each once and in order.
# shellcheck source=lib.sh
. "${0%/*}/lib.sh"

base=$AIOC_DIR/base pump7=$AIOC_DIR/pump7
mkdir -m 700 "$base" "$pump7"
client_pid='' receiver=''
finish() {
	# shellcheck disable=SC2086 # they may be empty
	stop $receiver $client_pid $server_pid
	[ "$failed" = 0 ] || cat ./*.log
	exit "$failed"
}
trap finish EXIT

AIOC_DIR=$base server -tls off -set disk_persistence_recv=true
start_client() { # also without a server
	aioc-client -dir "$pump7" -addr "127.0.0.1:$port" -name pump7 -tls off -set disk_persistence_send=true >>pump7.log 2>&1 &
	client_pid=$!
	waitfor 'the client to listen' "aioc-ctl -dir '$pump7' status"
}
start_client
waitfor 'the client to be connected' "echo 1 | aioc-send -dir '$pump7' -type _ping -await -timeout 5s"

kill -9 "$server_pid"
wait "$server_pid" 2>/dev/null
server_pid=''

seq 72000 >readings
refused=0
minute=0
while [ "$minute" -lt 60 ]; do
	# What aioc-send returned 0 for has to survive the kill just after it.
	case $minute in
	20)
		kill -9 "$client_pid"
		wait "$client_pid" 2>/dev/null
		start_client
		;;
	40)
		stop "$client_pid"
		start_client
		;;
	esac
	seq $((minute * 1200 + 1)) $((minute * 1200 + 1200)) | aioc-send -dir "$pump7" -lines || refused=$((refused + 1))
	minute=$((minute + 1))
done
same 'every minute was taken without a server' 0 "$refused"

aioc-server -dir "$base" -addr "127.0.0.1:$port" -tls off -set disk_persistence_recv=true >>server.log 2>&1 &
server_pid=$!
waitfor 'the server to listen' "aioc-ctl -dir '$base' status"
aioc-recv -dir "$base" -n 72000 -timeout 120s >got 2>receive.log &
receiver=$!
waitfor 'the first messages' '[ -s got ]' 60
kill -9 "$client_pid"
wait "$client_pid" 2>/dev/null
start_client
receiver_status=0
wait "$receiver" || receiver_status=$?
receiver=''
same 'all of an hour arrives when the server is back' 0 "$receiver_status"
check 'each once and in order' 'tr -d \" <got | cmp - readings'
waitfor 'nothing to wait in the client' "aioc-ctl -dir '$pump7' -json queues >queues; ! grep -Eq '\"(waiting|in_hand)\": *[1-9]' queues"
status 'and nothing comes twice' 124 aioc-recv -dir "$base" -n 1 -timeout 0.3s
