#!/bin/sh
# A broker that is killed while it keeps publications for subscribers that are
# there, away, or cut off: each gets all of them once and in order, and on the
# disk they are once.
# shellcheck source=lib.sh
. "${0%/*}/lib.sh"

base=$AIOC_DIR/base
mkdir -m 700 "$base"
client_pid='' clients='' receivers=''
finish() {
	# shellcheck disable=SC2086 # they may be empty
	stop $receivers $clients $server_pid
	[ "$failed" = 0 ] || cat ./*.log
	exit "$failed"
}
trap finish EXIT

AIOC_DIR=$base server -tls off -broker -set disk_persistence_send=true

# subscriber NAME: starts that client, which has to be connected
subscriber() {
	[ -d "$AIOC_DIR/$1" ] || mkdir -m 700 "$AIOC_DIR/$1"
	client "$AIOC_DIR/$1" "$1" -tls off -subscribe news -set 'recv_message_types=["news"]' -set disk_persistence_recv=true
	clients="$clients $client_pid"
}
subscriber near
near=$client_pid
subscriber far
far=$client_pid
subscriber gone
gone=$client_pid
waitfor 'three subscriptions' "[ \"\$(aioc-ctl -dir '$base' subscriptions -json | grep -o news | wc -l)\" -eq 3 ]"
stop "$gone"

crash() {
	kill -9 "$server_pid"
	wait "$server_pid" 2>/dev/null
	aioc-server -dir "$base" -addr "127.0.0.1:$port" -tls off -broker -set disk_persistence_send=true >>server.log 2>&1 &
	server_pid=$!
	waitfor 'the broker to listen' "aioc-ctl -dir '$base' status"
}

seq 6000 | awk '{ printf "%s %0100d\n", $1, $1 }' >all
sed 's/.*/"&"/' all >want
refused=0 round=0
while [ "$round" -lt 6 ]; do
	case $round in
	2) kill -9 "$far" ;;
	esac
	sed -n "$((round * 1000 + 1)),$((round * 1000 + 1000))p" all |
		aioc-send -dir "$base" -publish -type news -lines || refused=$((refused + 1))
	crash
	round=$((round + 1))
done
same 'all publications were taken' 0 "$refused"
wait "$far" 2>/dev/null
check 'they are on disk once, not for each of three' \
	"[ \"\$(du -sk '$base'/spool_* | awk '{ n += \$1 } END { print n }')\" -lt 3000 ]"
status 'nothing is damaged' 0 aioc-ctl spool verify "$base"
check 'each subscriber is named' "grep -q '\"gone\":6000' out"

subscriber far
subscriber gone
for name in near far gone; do
	aioc-recv -dir "$AIOC_DIR/$name" -type news -n 6000 -timeout 60s >"got.$name" 2>>receive.log &
	receivers="$receivers $!"
done
for name in near far gone; do
	waitfor "all for $name" "[ \"\$(wc -l <'got.$name')\" -ge 6000 ]" 60
	check "$name has got all of them, once and in order" "cmp want 'got.$name'"
done
waitfor 'nothing to be left' "! aioc-ctl -dir '$base' stats -json | grep -Eq '\"waiting\": ?[1-9]'"
check "nothing was lost" "! grep -q dropped server.log"
check 'who was there all the time still is' "kill -0 $near"
