#!/bin/sh
# Messages from a pipe through both connectors to a pipe, without TLS.
# shellcheck source=lib.sh
. "${0%/*}/lib.sh"

base=$AIOC_DIR/base pump7=$AIOC_DIR/pump7
mkdir -m 700 "$base" "$pump7"
client_pid=''
finish() {
	for pid in $client_pid $server_pid; do
		kill "$pid" 2>/dev/null && wait "$pid"
	done
	[ "$failed" = 0 ] || cat ./*.log
	exit "$failed"
}
trap finish EXIT

AIOC_DIR=$base server -tls off
aioc-client -dir "$pump7" -addr "127.0.0.1:$port" -name pump7 -tls off >client.log 2>&1 &
client_pid=$!
waitfor 'the client to take messages' "[ -S \"\$(ls -d '$pump7'/aioc_client_* | head -n 1)\" ]"

# send and recv are the tools, with a time limit: a hang is a failure
send() { aioc-send -dir "$@" -wait -timeout 60s; }
recv() { aioc-recv -dir "$@" -timeout 60s; }

# both INPUT FLAG ...: the input comes out as it went in, in both directions
both() {
	input=$1
	shift
	status "pump7 sends $input, $*" 0 send "$pump7" "$@" <"$input"
	status "base prints $input, $*" 0 recv "$base" "$@" -n "$count"
	check "what base prints is $input" "cmp out '$input'"
	status "base sends $input, $*" 0 send "$base" -to pump7 "$@" <"$input"
	status "pump7 prints $input, $*" 0 recv "$pump7" "$@" -n "$count"
	check "what pump7 prints is $input" "cmp out '$input'"
}

count=1000
i=0
while [ "$i" -lt "$count" ]; do
	i=$((i + 1))
	echo "{\"n\":$i,\"text\":\"line $i\"}"
done >values.json
both values.json
tr '\n' '\0' <values.json >values.0
both values.0 -0

count=1
printf '\0\1\377\n\0 \r\n' >bytes.bin
both bytes.bin -raw
printf '' >empty.bin
both empty.bin -raw

count=3
printf '%s\n' '"Füße"' '"tab\there"' '""' >strings.json
jsonlines() { printf 'Füße\ntab\there\n\n'; }
jsonlines >lines.txt
status 'lines are text messages' 0 send "$pump7" -lines <lines.txt
status 'text is printed as JSON strings' 0 recv "$base" -n 3
check 'in order, and escaped' 'cmp out strings.json'

count=2
printf '%s\n' '{"a":1}' '[1,2]' >two.json
status 'with ids and a tag' 0 send "$pump7" -tag blue -request-id 7 <two.json
status 'an envelope shows them' 0 recv "$base" -envelope -n 2
mv out envelopes.json
check 'one line for each' "[ \"\$(wc -l <envelopes.json)\" -eq 2 ]"
check 'with the tag' 'grep -c "\"tag\": *\"blue\"" envelopes.json | grep -q "^2\$"'
check 'with the id as a number' 'grep -c "\"request_id\": *7[,}]" envelopes.json | grep -q "^2\$"'

status 'one is taken' 0 send "$pump7" <two.json
status '-n 1 prints the first' 0 recv "$base" -n 1
same 'it is the first' '{"a":1}' "$(cat out)"
status 'the second was left for the next one' 0 recv "$base" -n 1
same 'it is the second' '[1,2]' "$(cat out)"
status 'nothing is left' 124 aioc-recv -dir "$base" -n 1 -timeout 0.2
status '-drain ends at once' 0 recv "$base" -drain

status 'what is not JSON is refused' 65 sh -c "echo '{\"a\":1} {oops' | aioc-send -dir '$pump7'"
check 'it says how many were taken' 'grep -q 1 err'
recv "$base" -drain >out 2>err
status 'a type that is not configured is refused' 77 sh -c "echo 1 | aioc-send -dir '$pump7' -type other"
check 'it is named' 'grep -q other err'
