#!/bin/sh
# A million messages through a pipe arrive, each once and in order.
# shellcheck source=lib.sh
. "${0%/*}/lib.sh"

base=$AIOC_DIR/base pump7=$AIOC_DIR/pump7
mkdir -m 700 "$base" "$pump7"
client_pid=''
finish() {
	# shellcheck disable=SC2086 # they may be empty
	stop $client_pid $server_pid
	[ "$failed" = 0 ] || cat ./*.log
	exit "$failed"
}
trap finish EXIT

AIOC_DIR=$base server -tls off
client "$pump7" pump7 -tls off

seq 1000000 >numbers
aioc-send -dir "$pump7" -lines -wait <numbers >send.out 2>&1 &
sender=$!
status 'a million messages are received' 0 aioc-recv -dir "$base" -n 1000000 -timeout 120s
wait "$sender" || failed=1
check 'they are what was sent, in order' 'cmp out numbers'
status 'and nothing else comes' 124 aioc-recv -dir "$base" -n 1 -timeout 0.2
