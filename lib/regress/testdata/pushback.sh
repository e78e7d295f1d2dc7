#!/bin/sh
# A receiver that is absent, stopped or slow holds the sender back, through both
# connectors and within their memory; then everything arrives in order.
# shellcheck source=lib.sh
. "${0%/*}/lib.sh"

base=$AIOC_DIR/base pump7=$AIOC_DIR/pump7
mkdir -m 700 "$base" "$pump7"
client_pid='' sender='' receiver=''
finish() {
	# shellcheck disable=SC2086 # they may be empty
	stop $sender $receiver $client_pid $server_pid
	[ "$failed" = 0 ] || cat ./*.log
	exit "$failed"
}
trap finish EXIT

# A queue holds 1 MB here: the data are eight times what both of them hold.
AIOC_DIR=$base server -tls off -set max_memory_per_queue=1000000 -set 'recv_message_types=["any","other"]'
client "$pump7" pump7 -tls off -set max_memory_per_queue=1000000 -set 'send_message_types=["any","other"]'

seq -f 'a line that has some length, number %.0f, and then some more' 200000 | tr '\n' '\0' >records
aioc-send -dir "$pump7" -0 -wait -type any <records >send.out 2>&1 &
sender=$!

status 'another type is not held up by it' 0 sh -c "echo 7 | aioc-send -dir '$pump7' -type other -wait -timeout 30s"
status 'and arrives first' 0 aioc-recv -dir "$base" -type other -n 1 -timeout 30s
same 'it is the other' 7 "$(cat out)"
check 'the sender still waits' "kill -0 $sender"

# Nobody reads more than the first byte that the receiver prints, until cat does.
mkfifo pipe
aioc-recv -dir "$base" -type any -0 -n 200000 -timeout 120s >pipe 2>receive.log &
receiver=$!
exec 3<pipe
dd bs=1 count=1 <&3 >got 2>dd.log
check 'the sender waits for a receiver whose output is not read' "kill -0 $sender"
kill -STOP "$receiver"
check 'and for one that is stopped' "kill -0 $sender"
kill -CONT "$receiver"
cat <&3 >>got
receiver_status=0
wait "$receiver" || receiver_status=$?
same 'the receiver ends well' 0 "$receiver_status"
sender_status=0
wait "$sender" || sender_status=$?
same 'the sender ends well' 0 "$sender_status"
check 'what arrived is what was sent, in order' 'cmp got records'
sender='' receiver=''
