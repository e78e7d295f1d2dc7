#!/bin/sh
# The recipes of aioc-bridge(7) for NATS JetStream.
# shellcheck source=lib.sh
. "${0%/*}/lib.sh"
need nats-server nats jq base64 setsid sha256sum

nats_port=$((30000 + $$ % 10000))
export NATS_URL="nats://127.0.0.1:$nats_port"

# broker: starts NATS with what it had on disk; its log is broker.log
broker() {
	while :; do
		nats-server -js -sd "$AIOC_DIR/js" -a 127.0.0.1 -p "$nats_port" >>broker.log 2>&1 &
		broker_pid=$!
		waitfor 'NATS to answer or to end' "nats stream ls || ! kill -0 $broker_pid"
		kill -0 "$broker_pid" 2>/dev/null && return
		nats_port=$((nats_port + 1))
		NATS_URL="nats://127.0.0.1:$nats_port"
	done
}

# length STREAM N: the stream has so many messages
length() { [ "$(nats stream info "$1" -j | jq .state.messages)" = "$2" ]; }

# stored N: the Nth message of READINGS
stored() {
	nats request --raw "\$JS.API.STREAM.MSG.GET.READINGS" "{\"seq\":$1}" |
		jq -r '.message.data // ""' | base64 -d
}

# pending N: the bridge has N messages that are not acknowledged
pending() {
	[ "$(nats consumer info READINGS aioc -j | jq .num_ack_pending)" = "$1" ]
}

payloads
printf plain >plain
broker
connectors

# To NATS.
bridge nats-out
status 'a message is taken that no stream takes' 0 send plain
waitfor 'the bridge to fail' "grep -q 'type reading, try 2' nats-out.log"
status 'the stream is made' 0 recipe nats-stream
n=1
waitfor 'the message to be in the stream' 'length READINGS 1'
check 'it is as it was sent' 'stored 1 | cmp - plain'
for pay in pay.*; do
	n=$((n + 1))
	status "$pay is sent" 0 send "$pay"
	waitfor "$pay in the stream" "length READINGS $n"
	check "$pay is in the stream as it was sent" "stored $n | cmp - '$pay'"
done

status 'with an identifier' 0 send plain -request-id one
status 'with the same again' 0 send plain -request-id one
# shellcheck disable=SC2016 # it is to stay as it is
status 'with another' 0 send pay.nul -request-id 'two
{{x}} "$(id)"'
n=$((n + 2))
waitfor 'both' "length READINGS $n"
check 'the second is the one with the other' "stored $n | cmp - pay.nul"

stop "$broker_pid"
status 'a message is taken while NATS is down' 0 send plain
waitfor 'the bridge to fail' "grep -q 'no servers available' nats-out.log"
broker
n=$((n + 1))
waitfor 'the message to come when NATS is back' "length READINGS $n"

nats stream edit READINGS --discard new --max-msgs "$n" -f >/dev/null
tries=$(wc -l <nats-out.log)
status 'a message is taken while the stream is full' 0 send plain
waitfor 'the bridge to fail' "[ \$(wc -l <nats-out.log) -ge $((tries + 2)) ]"
check 'it is not in the stream' "length READINGS $n"
nats stream edit READINGS --max-msgs=-1 -f >/dev/null
n=$((n + 1))
waitfor 'the message to come when there is room' "length READINGS $n"

kill -STOP "$broker_pid"
status 'a message is taken while NATS hangs' 0 send plain
waitfor 'the bridge to give up' "grep -Eq 'took longer than|timeout' nats-out.log"
kill -CONT "$broker_pid"
n=$((n + 1))
waitfor 'the message to come when NATS goes on' "[ \"\$(nats stream info READINGS -j | jq .state.messages)\" -ge $n ]"

head -c 140000 pay.large pay.large | tr -d '{' >huge
status 'a message is taken that is too large for the tool' 0 send huge
waitfor 'the bridge to say so' "grep -q 'to-nats: a message of .* bytes is too large' nats-out.log"
check 'the status is that of a message that can never succeed' "grep -q 'status 65' nats-out.log"
endbridge nats-out

# From NATS.
nats stream purge READINGS -f >/dev/null
status 'the consumer is made' 0 recipe nats-consumer
for pay in pay.*; do
	nats_body=$(printf '{{""}}' && LC_ALL=C sed 's/{{/{{"{{"}}/g; s/\x0/{{"\\x00"}}/g' "$pay" && echo '{{""}}')
	nats request --raw readings "$nats_body" >/dev/null
done
bridge nats-in
for pay in pay.*; do
	status "$pay is received" 0 aioc-recv -dir "$pump7" -type order -raw -n 1 -timeout 30s
	check "$pay is received as it was" "cmp out '$pay'"
done
waitfor 'all to be acknowledged' 'pending 0'
head -c 700000 /dev/urandom >huge
nats pub --force-stdin readings <huge 2>/dev/null
status 'a message that is larger than an argument is received' 0 aioc-recv -dir "$pump7" -type order -raw -n 1 -timeout 30s
check 'as it was' 'cmp out huge'
nats request --raw readings a -H 'Some: header / tries: 7 / cons seq: 7 / str seq: 7 / pending: 0' >/dev/null
status 'a message with headers is received' 0 aioc-recv -dir "$pump7" -type order -raw -n 1 -timeout 30s
same 'without them' a "$(cat out)"
waitfor 'it to be acknowledged' 'pending 0'

stop "$client_pid"
nats request --raw readings plain >/dev/null
waitfor 'the message to be under way' 'pending 1'
endbridge nats-in KILL
check 'what the peer has not got is not acknowledged' 'pending 1'
bridge nats-in
startclient
status 'it is received when the peer is back' 0 aioc-recv -dir "$pump7" -type order -raw -n 1 -timeout 60s
check 'as it was' 'cmp out plain'
waitfor 'it to be acknowledged' 'pending 0'

stop "$broker_pid"
# The tool is waiting for a message then, or about to.
waitfor 'the bridge to notice' "grep -q 'no servers available\\|will attempt reconnect' nats-in.log"
broker
nats request --raw readings again >/dev/null
status 'a message after NATS was down is received' 0 aioc-recv -dir "$pump7" -type order -raw -n 1 -timeout 60s
same 'as it was' again "$(cat out)"
waitfor 'it to be acknowledged' 'pending 0'
endbridge nats-in

# A stream that is made again has numbers that were there before.
nats stream rm READINGS -f >/dev/null
status 'the stream is made again' 0 recipe nats-stream
status 'and the consumer' 0 recipe nats-consumer
nats request --raw readings anew >/dev/null
bridge nats-in
status 'its first message is received' 0 aioc-recv -dir "$pump7" -type order -raw -n 1 -timeout 60s
same 'as it was' anew "$(cat out)"
