#!/bin/sh
# The recipes of aioc-bridge(7) for Redis streams.
# shellcheck source=lib.sh
. "${0%/*}/lib.sh"
need redis-server redis-cli timeout setsid sha256sum

redis_port=$((40000 + $$ % 10000))
export REDIS_URL="redis://127.0.0.1:$redis_port"
redis() { redis-cli -u "$REDIS_URL" -e --raw -D '' "$@"; }

# broker: starts Redis with what it had on disk; its log is broker.log
broker() {
	while :; do
		redis-server --port "$redis_port" --bind 127.0.0.1 --dir "$AIOC_DIR" --save '' \
			--appendonly yes --appendfsync always >>broker.log 2>&1 &
		broker_pid=$!
		waitfor 'Redis to answer or to end' "[ \"\$(redis ping)\" = PONG ] || ! kill -0 $broker_pid"
		kill -0 "$broker_pid" 2>/dev/null && return
		redis_port=$((redis_port + 1))
		REDIS_URL="redis://127.0.0.1:$redis_port"
	done
}

# entry N: the message of the Nth entry of readings
entry() { redis --eval entry.lua readings , "$1"; }
cat >entry.lua <<'END'
return redis.call("XRANGE", KEYS[1], "-", "+")[tonumber(ARGV[1])][2][2]
END

# length N: readings has so many entries
length() { [ "$(redis XLEN readings)" = "$1" ]; }

payloads
printf plain >plain
broker
connectors

# To Redis.
bridge redis-out
n=0
for pay in pay.*; do
	n=$((n + 1))
	status "$pay is sent" 0 send "$pay"
	waitfor "$pay in the stream" "length $n"
	check "$pay is in the stream as it was sent" "entry $n | cmp - '$pay'"
done

stop "$broker_pid"
status 'a message is taken while Redis is down' 0 send plain
waitfor 'the bridge to fail' "grep -q 'type reading, try 2' redis-out.log"
endbridge redis-out
waitfor 'the bridge to give the message back' 'waiting 1'
status 'another message is taken while Redis is down' 0 send plain
bridge redis-out
waitfor 'the bridge to fail again' "[ \$(grep -c 'type reading, try 2' redis-out.log) -ge 2 ]"
broker
n=$((n + 1))
waitfor 'the message to come when Redis is back' "length $n"

redis config set maxmemory 1 >/dev/null
status 'a message is taken while Redis is full' 0 send plain
waitfor 'the bridge to say so' "grep -q 'OOM' redis-out.log"
check 'it is not in the stream' "length $n"
redis config set maxmemory 0 >/dev/null
n=$((n + 1))
waitfor 'the message to come when there is room' "length $n"

kill -STOP "$broker_pid"
status 'a message is taken while Redis hangs' 0 send plain
waitfor 'the bridge to give up' "grep -q 'took longer than' redis-out.log"
kill -CONT "$broker_pid"
# What the stopped server had been sent it now does: it may come twice.
n=$((n + 1))
waitfor 'the message to come when Redis goes on' "[ \$(redis XLEN readings) -ge $n ]"
endbridge redis-out

bridge redis-once
redis DEL readings >/dev/null
waitfor 'what is left to come' "echo x | aioc-send -dir '$pump7' -type reading -raw -ack && [ \$(redis XLEN readings) -ge 1 ]"
redis DEL readings >/dev/null
status 'with an identifier' 0 send plain -request-id one
status 'with the same again' 0 send plain -request-id one
# shellcheck disable=SC2016 # it is to stay as it is
status 'with another' 0 send pay.nul -request-id 'two
{x} "$(id)"'
waitfor 'both' 'length 2'
check 'the first is the first' 'entry 1 | cmp - plain'
check 'the second is the one with the other' 'entry 2 | cmp - pay.nul'
redis config set maxmemory 1 >/dev/null
status 'a message with an identifier while Redis is full' 0 send plain -request-id three
waitfor 'the bridge to fail' "grep -q OOM redis-once.log"
redis config set maxmemory 0 >/dev/null
waitfor 'the message after that' 'length 3'
redis DEL readings >/dev/null
redis SET readings 'not a stream' >/dev/null
status 'a message while the stream is something else' 0 send plain -request-id four
waitfor 'the bridge to fail' "grep -q WRONGTYPE redis-once.log"
redis DEL readings >/dev/null
waitfor 'the message that had failed half way' 'length 1'
endbridge redis-once

# From Redis.
status 'the group is made' 0 recipe redis-group
for pay in pay.*; do
	redis -x XADD orders '*' message <"$pay" >/dev/null
done
redis XADD orders '*' other field >/dev/null
bridge redis-in
for pay in pay.*; do
	status "$pay is received" 0 aioc-recv -dir "$pump7" -type order -raw -n 1 -timeout 30s
	check "$pay is received as it was" "cmp out '$pay'"
done
pending() { [ "$(redis XPENDING orders aioc | head -n 1)" = "$1" ]; }
waitfor 'all to be acknowledged' 'pending 0'
waitfor 'an entry of another form to be reported' 'grep -q "has no message" redis-in.log'

stop "$client_pid"
redis -x XADD orders '*' message <plain >/dev/null
waitfor 'the entry to be under way' 'pending 1'
endbridge redis-in KILL
check 'what the peer has not got is not acknowledged' 'pending 1'
bridge redis-in
startclient
status 'it is received when the peer is back' 0 aioc-recv -dir "$pump7" -type order -raw -n 1 -timeout 60s
check 'as it was' 'cmp out plain'
waitfor 'it to be acknowledged' 'pending 0'

stop "$broker_pid"
waitfor 'the bridge to fail' "grep -q 'Connection refused' redis-in.log"
broker
redis -x XADD orders '*' message <pay.lines >/dev/null
status 'an entry after Redis was down' 0 aioc-recv -dir "$pump7" -type order -raw -n 1 -timeout 60s
check 'is received as it was' 'cmp out pay.lines'
