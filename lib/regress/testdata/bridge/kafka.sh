#!/bin/sh
# The recipes of aioc-bridge(7) for Kafka, with the mock cluster that is in the
# library of kcat. It keeps messages in memory: one that is stopped has lost them.
# shellcheck source=lib.sh
. "${0%/*}/lib.sh"
need kcat setsid sha256sum

# What kcat reads is that of the page, in a home of its own.
export HOME="$AIOC_DIR/home"
mkdir -p "$HOME/.config"

# broker: starts a cluster, on another port each time; its log is broker.log
broker() {
	# A consumer of a topic that stays empty holds the cluster.
	kcat -C -b mock -t mock -X test.mock.num.brokers=1 -d mock >broker.log 2>&1 &
	broker_pid=$!
	waitfor 'the cluster to have a port' "grep -q 'bootstrap.servers=127' broker.log"
	sed -n 's/.*\(bootstrap.servers=127[0-9.:]*\).*/\1/p' broker.log | head -n 1 >"$HOME/.config/kcat.conf"
	waitfor 'the cluster to answer' 'kcat -q -L -t readings'
}

# places: where in readings there is a message, as partition and offset
places() { timeout 20 kcat -C -q -e -t readings -o beginning -f '%p %o\n' | sort; }

# new: where there is one that was not there when new was called before
touch seen
new() {
	places >now && comm -13 seen now >fresh && [ "$(wc -l <fresh)" -eq 1 ] && mv now seen
}

# stored [FORMAT]: prints the message that new has found
stored() {
	read -r partition offset <fresh
	timeout 20 kcat -C -q -t readings -p "$partition" -o "$offset" -c 1 -f "${1-%s}"
}

payloads
rm pay.empty # of which more below
printf plain >plain
broker
connectors

# To Kafka.
bridge kafka-out
for pay in pay.*; do
	status "$pay is sent" 0 send "$pay"
	waitfor "$pay in the topic" new
	check "$pay is in the topic as it was sent" "stored | cmp - '$pay'"
done

: >empty
status 'an empty message is taken' 0 send empty
waitfor 'the bridge to say that kcat cannot send it' "grep -q 'to-kafka: kcat cannot send an empty message' kafka-out.log"
check 'it is a dead letter' "grep -q 'status 65' kafka-out.log"
head -c 1500000 /dev/zero >huge
status 'a message is taken that is too large' 0 send huge
waitfor 'the bridge to say so' "grep -q 'Message size too large' kafka-out.log"
waitfor 'it to be a dead letter' "[ \$(aioc-ctl -dir '$base' -json dead list | tr -d -c '{' | wc -c) -ge 2 ]"

status 'with an identifier' 0 send plain -request-id one
waitfor 'it in the topic' new
id=$(stored %h)
same 'its key is a header' "aioc-id=$(echo 'pump7 reading one' | sha256sum | cut -d ' ' -f 1)" "$id"
# shellcheck disable=SC2016 # it is to stay as it is
status 'with another' 0 send pay.nul -request-id 'two
%s "$(id)"'
waitfor 'it in the topic' new
check 'it is as it was sent' 'stored | cmp - pay.nul'

kill -STOP "$broker_pid"
status 'a message is taken while Kafka hangs' 0 send plain
waitfor 'the bridge to give up' "grep -q 'took longer than' kafka-out.log"
kill -CONT "$broker_pid"
waitfor 'the message to come when Kafka goes on' "places >now && [ \$(wc -l <now) -gt \$(wc -l <seen) ]"

stop "$broker_pid"
status 'a message is taken while Kafka is down' 0 send pay.lines
waitfor 'the bridge to fail' "grep -Eq 'brokers are down|transport failure' kafka-out.log"
: >seen
broker
waitfor 'the message to come when Kafka is back' new
check 'it is as it was sent' 'stored | cmp - pay.lines'
endbridge kafka-out

# From Kafka.
publish() { kcat -q -P -t orders -p 0 -X acks=all "$1"; }
order() { status "$1" 0 aioc-recv -dir "$pump7" -type order -raw -n 1 -timeout 60s; }
next() { [ "$(cat "$RECIPES/orders.0")" = "$1" ]; }
bridge kafka-in
n=0
for pay in pay.*; do
	n=$((n + 1))
	status "$pay is published" 0 publish "$pay"
	order "$pay is received"
	check "$pay is received as it was" "cmp out '$pay'"
done
printf x | kcat -q -P -Z -K x -t orders -p 0
n=$((n + 1))
order 'a message without a value is received'
check 'as an empty one' '[ ! -s out ]'
waitfor 'the place to be behind it' "next $n"

stop "$client_pid"
status 'a message is published while the peer is away' 0 publish plain
waitfor 'it to be under way' "tail -n +2 '$RECIPES/orders.0.message' | cmp - plain"
endbridge kafka-in KILL
check 'what the peer has not got is not behind the place' "next $n"
bridge kafka-in
startclient
order 'it is received when the peer is back'
check 'as it was' 'cmp out plain'
n=$((n + 1))
waitfor 'the place to be behind it' "next $n"

# A topic that begins again has numbers that were there before.
stop "$broker_pid"
waitfor 'the bridge to fail' "grep -Eq 'brokers are down|transport failure' kafka-in.log"
broker
status 'a message in a topic that begins again' 0 publish pay.lines
order 'is received'
check 'as it was' 'cmp out pay.lines'
waitfor 'the place to be behind it' 'next 1'
endbridge kafka-in

: >"$RECIPES/orders.0"
status 'a place that was lost is not guessed' 1 sh "$RECIPES/from-kafka" orders 0 "$RECIPES/orders.0"
check 'and told' "grep -q 'no offset in' err"
