#!/bin/sh
# The recipes of aioc-bridge(7) for MQTT, with mosquitto.
# shellcheck source=lib.sh
. "${0%/*}/lib.sh"
PATH=$PATH:/usr/sbin
need mosquitto mosquitto_pub mosquitto_sub setsid

# The address and the user are in the files of the clients, as the page says.
mkdir -m 700 db
mqtt_port=$((25000 + $$ % 5000))

# broker: starts mosquitto with what it had on disk, and with the rules of the
# file acl; its log is broker.log
broker() {
	while :; do
		cat >mosquitto.conf <<END
listener $mqtt_port 127.0.0.1
allow_anonymous true
acl_file $AIOC_DIR/acl
user $(id -un)
persistence true
persistence_location $AIOC_DIR/db/
END
		for tool in mosquitto_pub mosquitto_sub; do
			printf '%s\n' '-h 127.0.0.1' "-p $mqtt_port" '-u bridge' >"config/$tool"
		done
		mosquitto -c mosquitto.conf >>broker.log 2>&1 &
		broker_pid=$!
		waitfor 'mosquitto to answer or to end' "mosquitto_pub -t test -m x -q 1 || ! kill -0 $broker_pid"
		kill -0 "$broker_pid" 2>/dev/null && return
		mqtt_port=$((mqtt_port + 1))
	done
}

# allow TOPIC ...: writes the rules for the only user
allow() {
	printf '%s\n' 'user bridge' 'topic read #' >acl
	printf 'topic write %s\n' "$@" >>acl
}

# subscribe TOPIC: a session that lasts, for take
subscribe() { mosquitto_sub -V 5 -i taker -c -x 4294967295 -q 1 -t "$1" -E; }

# take TOPIC: prints the next message of that session, and waits until the broker
# knows that it has been taken
take() {
	taken=0
	mosquitto_sub -V 5 -i taker -c -x 4294967295 -D connect receive-maximum 1 \
		-q 1 -t "$1" -C 1 -N -W 30 || taken=$?
	waitfor 'the broker to know it' "grep 'Client taker\|as taker' broker.log | tail -n 1 | grep -Eq 'disconnected|closed'"
	return "$taken"
}

payloads
printf plain >plain
allow test pumps/reading pumps/order
chmod 600 acl
broker
connectors

# To MQTT.
bridge mqtt-out
status 'a message is taken that nobody subscribes to' 0 send plain
waitfor 'the bridge to say so' "grep -q 'RC:16' mqtt-out.log"
status 'a subscriber comes, and goes' 0 subscribe pumps/reading
status 'the message comes to it' 0 take pumps/reading
check 'as it was sent' 'cmp out plain'
for pay in pay.*; do
	status "$pay is sent" 0 send "$pay"
	status "$pay is published" 0 take pumps/reading
	check "$pay is published as it was sent" "cmp out '$pay'"
done

stop "$broker_pid"
status 'a message is taken while the broker is down' 0 send plain
waitfor 'the bridge to fail' "grep -q 'Connection refused' mqtt-out.log"
broker
status 'it comes when the broker is back' 0 take pumps/reading
check 'as it was sent' 'cmp out plain'

allow test
kill -HUP "$broker_pid"
waitfor 'the broker to refuse' "mosquitto_pub -V 5 -d -q 1 -t pumps/reading -m refused 2>&1 | grep -q RC:135"
# What was published before that is not what is looked for.
while timeout 2 mosquitto_sub -V 5 -i taker -c -x 4294967295 -q 1 -t pumps/reading -W 1 | grep -q refused; do :; done
status 'a message is taken while the topic is not allowed' 0 send pay.nul
waitfor 'the bridge to fail' "grep -q 'RC:135' mqtt-out.log"
allow test pumps/reading pumps/order
kill -HUP "$broker_pid"
status 'it comes when the topic is allowed' 0 take pumps/reading
check 'as it was sent' 'cmp out pay.nul'

kill -STOP "$broker_pid"
status 'a message is taken while the broker hangs' 0 send plain
waitfor 'the bridge to give up' "grep -q 'took longer than' mqtt-out.log"
kill -CONT "$broker_pid"
status 'it comes when the broker goes on' 0 take pumps/reading
check 'as it was sent' 'cmp out plain'
endbridge mqtt-out

# From MQTT.
publish() { mosquitto_pub -V 5 -q 1 -t pumps/order -f "$1"; }
order() { status "$1" 0 aioc-recv -dir "$pump7" -type order -raw -n 1 -timeout 60s; }
subscribed() { mosquitto_pub -V 5 -d -q 1 -t pumps/order -m first | grep -q 'RC:0)'; }
bridge mqtt-in
waitfor 'the bridge to subscribe' subscribed
order 'the first message is received'
for pay in pay.*; do
	check "$pay is published" "publish '$pay'"
	order "$pay is received"
	check "$pay is received as it was" "cmp out '$pay'"
done

endbridge mqtt-in KILL
check 'a message is published while the bridge does not run' 'publish pay.lines'
check 'and another' 'publish pay.nul'
bridge mqtt-in
order 'one is received when it runs again'
same 'as it was' "$(xxd pay.lines)" "$(xxd out)"
order 'the other is received'
same 'as it was' "$(xxd pay.nul)" "$(xxd out)"

stop "$client_pid"
check 'a message is published while the peer is away' 'publish plain'
waitfor 'it to be in the file' "cmp '$RECIPES/order.mqtt' plain"
endbridge mqtt-in KILL
bridge mqtt-in
startclient
order 'it is received when the peer is back'
same 'as it was' "$(xxd plain)" "$(xxd out)"

waitfor 'the file to be gone' "! [ -e '$RECIPES/order.mqtt' ]"
stop "$broker_pid"
endbridge mqtt-in
bridge mqtt-in
waitfor 'the bridge to fail' "grep -q 'Connection refused' mqtt-in.log"
broker
waitfor 'the bridge to have connected' 'publish pay.lines'
order 'a message after the broker was down is received'
same 'as it was' "$(xxd pay.lines)" "$(xxd out)"
endbridge mqtt-in

allow test pumps/level
kill -HUP "$broker_pid"
bridge mqtt-stream
waitfor 'the bridge to subscribe' "mosquitto_pub -V 5 -d -q 1 -t pumps/level -m '{\"first\":1}' | grep -q 'RC:0)'"
order 'JSON is received from the pipe'
same 'as it was' '{"first":1}' "$(cat out)"
