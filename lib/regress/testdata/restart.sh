#!/bin/sh
# kill -9 of either connector: the other end connects again by itself, and so
# do the tools that wait.
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

AIOC_DIR=$base server -tls off
client "$pump7" pump7 -tls off
aioc-recv -dir "$base" >got 2>receive.log &
receiver=$!

send() { echo "\"$1\"" | aioc-send -dir "$pump7" -wait -ack -timeout 30s; }

status 'the first message is taken' 0 send one
waitfor 'the first message' 'grep -q one got'

kill -9 "$server_pid"
wait "$server_pid" 2>/dev/null
# While the server is away a message is refused, and the sender says so.
waitfor 'the client to notice' "echo 1 | aioc-send -dir '$pump7' -type any 2>err; grep -q 'not connected' err"
status 'a peer that is away is a temporary failure' 75 sh -c "echo 1 | aioc-send -dir '$pump7'"
check 'it says how many were taken' "grep -q 'message 1' err"
aioc-server -dir "$base" -addr "127.0.0.1:$port" -tls off >>server.log 2>&1 &
server_pid=$!
status 'the client connects again, and -wait waits for that' 0 send two
waitfor 'the receiver of before to get it' 'grep -q two got'

kill -9 "$client_pid"
wait "$client_pid" 2>/dev/null
status 'without a connector there is none' 69 sh -c "echo 1 | aioc-send -dir '$pump7'"
client "$pump7" pump7 -tls off
status 'a connector that was killed can be started again' 0 send three
waitfor 'the message after the restart' 'grep -q three got'
same 'nothing came twice' "$(printf '"one"\n"two"\n"three"')" "$(grep -v '^1$' got)"

kill "$server_pid"
server_status=0
wait "$server_pid" || server_status=$?
same 'a server ends well by a signal' 0 "$server_status"
check 'its sockets are gone' "! ls '$base'/aioc_server_* '$base'/uds_path_* 2>/dev/null"
server_pid=''
