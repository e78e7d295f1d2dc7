#!/bin/sh
# The disk of a server is full: senders are told so and can try again, the
# connector stays up, also when it is killed and started there, and when there is
# room nothing is lost and nothing has come twice. Files wait, or are refused.
#
# The disk is a small tmpfs, in a mount namespace that goes with this script. Who
# is not root gets one in a namespace of users, below a root directory of its own:
# that of the host seems to be nobody's there.
# shellcheck disable=SC2016 # what check and waitfor are given is expanded there

if [ -z "${DISKFULL_INSIDE-}" ]; then
	me=$(cd "${0%/*}" && pwd)/${0##*/}
	new_root='
		set -eu
		mount -t tmpfs -o mode=755 none "$1"
		for d in bin sbin lib lib32 lib64 usr etc dev proc "${2#/}" "${3#/}"; do
			if [ -h "/$d" ]; then
				cp -P "/$d" "$1/$d"
			elif [ -d "/$d" ]; then
				mkdir -p "$1/$d"
				mount --rbind "/$d" "$1/$d"
			fi
		done
		mkdir -m 755 -p "$1/w"
		cd "$1"
		exec chroot . /usr/bin/env -C /w AIOC_DIR=/w TMPDIR=/w DISKFULL_INSIDE=1 sh -u "$4"'
	bin=$(command -v aioc-server)
	if [ "$(id -u)" = 0 ] && unshare -m true 2>/dev/null; then
		DISKFULL_INSIDE=1 exec unshare -m sh -u "$me"
	elif [ "$(id -u)" != 0 ] && unshare -rm true 2>/dev/null; then
		mkdir root
		exec unshare -rm sh -c "$new_root" sh "$PWD/root" "${bin%/*}" "${me%/*}" "$me"
	fi
	echo "NOT TESTED: a full disk, since there can be no mount namespace here; tests with a disk that fails as told have to do (lib/queue, lib/spool)"
	exit 0
fi
# shellcheck source=lib.sh
. "${0%/*}/lib.sh"

disk=$AIOC_DIR/disk base=$AIOC_DIR/disk/base pump7=$AIOC_DIR/pump7
mkdir -m 700 "$disk" "$pump7"
mount -t tmpfs -o size=24m,mode=700 none "$disk" || exit 1
mkdir -m 700 "$base"
client_pid='' receiver='' waiting=''
finish() {
	# shellcheck disable=SC2086 # they may be empty
	stop $waiting $receiver $client_pid $server_pid
	[ "$failed" = 0 ] || cat ./*.log
	exit "$failed"
}
trap finish EXIT

durable='disk_persistence_send=true'
kept='disk_persistence_recv=true'
targets="file_recv_config={\"any\": {\"target_directory\": \"$disk/in\"}}"

# fill takes all that is left of the disk; empty gives it back
fill() {
	dd if=/dev/zero of="$disk/ballast" bs=65536 2>/dev/null
	dd if=/dev/zero of="$disk/ballast2" bs=512 2>/dev/null
	[ "$(df -k "$disk" | awk 'NR == 2 { print $4 }')" -lt 16 ]
}
empty() { rm -f "$disk/ballast" "$disk/ballast2"; }

# Lines of 1 KiB with numbers: next is the first that was not taken yet.
line=$(printf '%01000d' 0)
next=1
# give N: hands over up to N of them
give() {
	got=0
	seq -f "%.0f $line" "$next" $((next + $1 - 1)) | aioc-send -dir "$base" -to pump7 -lines >out 2>err || got=$?
	if [ "$got" = 0 ]; then
		next=$((next + $1))
	else
		taken=$(sed -n 's/.* \([0-9][0-9]*\) messages\{0,1\} taken.*/\1/p' err)
		next=$((next + ${taken:-0}))
	fi
	return "$got"
}

AIOC_DIR=$base server -tls off -set "$durable" -set "$kept" -set "$targets"
start_server() {
	aioc-server -dir "$base" -addr "127.0.0.1:$port" -tls off -set "$durable" -set "$kept" -set "$targets" >>server.log 2>&1 &
	server_pid=$!
	waitfor 'the server to answer' "aioc-ctl -dir '$base' status"
}

# Messages to a client that is away, until the disk takes no more.
n=0
while give 200; do
	n=$((n + 1))
	[ "$n" -lt 200 ] || break
done
same 'the sender is told to try again' 75 "$got"
check 'and why' 'grep -q "no space left" err'
check 'much was taken before' '[ "$next" -gt 10000 ]'
check 'the last of the disk is left to others' '[ "$(df -k "$disk" | awk "NR == 2 { print \$4 }")" -gt 1000 ]'
check 'others fill it' fill
give 10
same 'it is the same when nothing is left' 75 "$got"
check 'the server runs' 'kill -0 "$server_pid" && aioc-ctl -dir "$base" status >out'
status 'it says that it is not well' 1 aioc-ctl -dir "$base" health
check 'and why' 'grep -q "is full" out err'

# Killed and started while there is no room.
kill -9 "$server_pid"
wait "$server_pid" 2>/dev/null
start_server
give 10
same 'nothing is taken after a start either' 75 "$got"

# What waits there is received all the same, by a client on a disk with room, also
# when the server is killed meanwhile: it cannot even write down what has gone.
client "$pump7" pump7 -tls off -set "$durable" -set "$kept"
receive() { aioc-recv -dir "$pump7" -n "$1" -timeout 100s 2>>receive.log | tr -d '"' | cut -d ' ' -f 1 >>got; }
receive 5000
same 'messages are received from a full disk' 5000 "$(wc -l <got)"
kill -9 "$server_pid"
wait "$server_pid" 2>/dev/null
start_server
receive $((next - 5001))
empty
waitfor 'room' 'aioc-ctl -dir "$base" health'
give 100
same 'messages are taken when there is room' 0 "$got"
receive 100
seq $((next - 1)) >want
check 'all that were taken have come, each once and in order' 'cmp got want'
status 'nothing waits any more' 124 aioc-recv -dir "$pump7" -n 1 -timeout 1s

# A file for which there is no room waits where it is.
dd if=/dev/urandom of=photo bs=1048576 count=2 2>/dev/null
check 'others fill the disk again' fill
aioc-send -dir "$pump7" -wait -ack -timeout 100s -file photo >sent 2>&1 &
waiting=$!
waitfor 'the file to wait' 'grep -q "no space left\|no room" pump7.log server.log || ! aioc-ctl -dir "$pump7" health'
check 'nothing of it is to be seen' '[ ! -e "$disk/in/photo" ]'
check 'the sender waits' 'kill -0 "$waiting"'
check 'messages without files go on where they need no disk' "echo 1 | aioc-send -dir '$pump7' -type _ping -await -timeout 20s >out"
empty
sent_status=0
wait "$waiting" || sent_status=$?
waiting=''
same 'the sender ends well' 0 "$sent_status"
waitfor 'the file' 'cmp photo "$disk/in/photo"'
same 'nothing else is left' '' "$(find "$disk/in" -name '.aioc-*')"
