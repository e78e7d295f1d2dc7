#!/bin/sh
# Two connectors on this host, and messages through them: make demo
#
# "base" is the server, "pump7" the client. On two hosts it is the same, with
# the address of base in place of 127.0.0.1.
set -eu

tmp=$(mktemp -d "/tmp/aioc-demo.XXXXXX")
server='' client='' responder=''

# stop PID: ends a process, in the end by force: a signal can be lost in the
# moment in which the shell becomes the program
stop() {
	kill "$1" 2>/dev/null || return 0
	tries=150
	while [ "$tries" -gt 0 ] && kill -0 "$1" 2>/dev/null; do
		sleep 0.1
		tries=$((tries - 1))
	done
	kill -9 "$1" 2>/dev/null || :
	wait "$1" || :
}

finish() {
	status=$?
	trap - EXIT HUP INT TERM
	if [ "$status" != 0 ]; then
		echo "the demo failed; the logs of the connectors:" >&2
		cat "$tmp"/*.log >&2 2>/dev/null || :
	fi
	for pid in $responder $client $server; do
		stop "$pid"
	done
	rm -rf "$tmp"
	exit "$status"
}
trap finish EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM
unset AIOC_CONFIG AIOC_DIR AIOC_CONNECTOR || :

say() { echo "== $*"; }

# expect WANT FILE: shows what came, and fails if it is something else
expect() {
	sed 's/^/   /' "$2"
	if [ "$(cat "$2")" != "$1" ]; then
		echo "wanted: $1" >&2
		exit 1
	fi
}

# ready PID PATTERN: waits until the process has its socket; false when it has
# ended instead
ready() {
	tries=300
	while [ "$tries" -gt 0 ]; do
		for socket in $2; do
			[ ! -S "$socket" ] || return 0
		done
		kill -0 "$1" 2>/dev/null || return 1
		sleep 0.1
		tries=$((tries - 1))
	done
	echo "no socket $2" >&2
	exit 1
}

types='["reading","order","sum"]'

say "base: the certificates; pump7 gets its part of them"
aioc-certs create "$tmp/base"
mkdir -m 700 "$tmp/pump7"
aioc-certs pack client "$tmp/base" | tar -x -f - -C "$tmp/pump7"

say "base: the server; pump7: the client, which gets a certificate of its own"
port=$((20000 + $$ % 20000))
while :; do
	aioc-server -dir "$tmp/base" -addr "127.0.0.1:$port" \
		-set "send_message_types=$types" -set "recv_message_types=$types" 2>"$tmp/server.log" &
	server=$!
	ready "$server" "$tmp/base/aioc_server_*" && break
	wait "$server" || :
	grep -q 'in use' "$tmp/server.log" || exit 1
	port=$((port + 1))
done
aioc-client -dir "$tmp/pump7" -addr "127.0.0.1:$port" -name pump7 \
	-set "send_message_types=$types" -set "recv_message_types=$types" 2>"$tmp/client.log" &
client=$!
ready "$client" "$tmp/pump7/aioc_client_*"

# -wait: until the peer is there, which takes a moment.
say "pump7 sends three readings to base"
printf '%s\n' '{"temp":21.5}' '{"temp":21.7}' '{"temp":21.9}' |
	aioc-send -dir "$tmp/pump7" -type reading -wait -timeout 30s
aioc-recv -dir "$tmp/base" -type reading -n 3 -timeout 30s >"$tmp/got"
expect '{"temp":21.5}
{"temp":21.7}
{"temp":21.9}' "$tmp/got"

say "base sends an order to pump7"
echo '{"valve":"open"}' | aioc-send -dir "$tmp/base" -to pump7 -type order -wait -timeout 30s
aioc-recv -dir "$tmp/pump7" -type order -n 1 -timeout 30s >"$tmp/got"
expect '{"valve":"open"}' "$tmp/got"

say "pump7 asks for a sum; a shell command on base answers"
# shellcheck disable=SC2016 # it is the other shell that adds
aioc-recv -dir "$tmp/base" -type sum -n 1 -timeout 30s -- \
	sh -c 'echo $(($(tr -d "[]" | tr , +)))' &
responder=$!
echo '[1,2]' | aioc-send -dir "$tmp/pump7" -type sum -await -timeout 30s >"$tmp/got"
expect 3 "$tmp/got"
wait "$responder"
responder=''

say "done"
