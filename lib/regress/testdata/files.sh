#!/bin/sh
# Files: they arrive whole and once, with their message, also when either
# connector is killed meanwhile, and small messages do not wait for them.
# shellcheck disable=SC2016 # what check and waitfor are given is expanded there
# shellcheck source=lib.sh
. "${0%/*}/lib.sh"

base=$AIOC_DIR/base pump7=$AIOC_DIR/pump7
mkdir -m 700 "$base" "$pump7"
client_pid='' receiver=''
finish() {
	# shellcheck disable=SC2086 # they may be empty
	stop $receiver $client_pid $server_pid
	[ "$failed" = 0 ] || cat ./*.log
	exit "$failed"
}
trap finish EXIT

targets="file_recv_config={\"any\": {\"target_directory\": \"$PWD/in/{source_id}\"}}"
durable='disk_persistence_send=true'
kept='disk_persistence_recv=true'
AIOC_DIR=$base server -tls off -set "$targets" -set "$durable" -set "$kept"
client "$pump7" pump7 -tls off -set "$durable"

receive() {
	aioc-recv -dir "$base" -- sh -c 'echo "$(cat) ${AIOC_FILE##*/}" >>got' 2>>receive.log &
	receiver=$!
}
file() { aioc-send -dir "$pump7" -wait -file "$@"; }

receive
dd if=/dev/urandom of=big bs=1048576 count=96 2>/dev/null
echo small >small
: >empty
status 'a small file is taken' 0 file small
status 'an empty file is taken' 0 file empty
status 'a file with a message is taken' 0 sh -c "echo '\"x\"' | aioc-send -dir '$pump7' -file small -file-name dir/other -"
waitfor 'three messages' '[ "$(wc -l <got)" -eq 3 ]'
check 'the files are there' 'cmp small in/pump7/small && cmp empty in/pump7/empty && cmp small in/pump7/dir/other'
same 'the handler knows the file' 'null small
null empty
"x" other' "$(cat got)"

# The server, the client and the server again are killed while a file is on its way.
cp big copy
status 'a big file is taken' 0 file copy -delete
for victim in server client server; do
	waitfor 'a part of it' '[ -n "$(find in -name ".aioc-*" -size +512k)" ] || [ -f in/pump7/copy ]'
	case $victim in
	server)
		kill -9 "$server_pid"
		wait "$server_pid" 2>/dev/null
		aioc-server -dir "$base" -addr "127.0.0.1:$port" -tls off -set "$targets" -set "$durable" -set "$kept" >>server.log 2>&1 &
		server_pid=$!
		;;
	client)
		kill -9 "$client_pid"
		wait "$client_pid" 2>/dev/null
		client "$pump7" pump7 -tls off -set "$durable"
		;;
	esac
done
stop "$receiver"
waitfor 'the server' "echo 1 | aioc-send -dir '$base' -to pump7 -type _ping -await -timeout 2s"
receive
waitfor 'the big file' 'cmp -s big in/pump7/copy && [ "$(wc -l <got)" -eq 4 ]'
waitfor 'the source to be removed' '[ ! -e copy ]'
same 'its message came once' 'null copy' "$(sed 1,3d got)"
if [ -r /proc/self/status ]; then
	for pid in $server_pid $client_pid; do
		peak=$(sed -n 's/^VmHWM:[^0-9]*\([0-9]*\) kB$/\1/p' "/proc/$pid/status")
		check "a connector keeps no file in memory: $peak KiB at most" "[ '$peak' -lt 65536 ]"
	done
fi
same 'nothing else is left' '' "$(find in -name '.aioc-*')"

status 'a file that is not there' 1 file missing
status 'a directory' 1 file in
status 'a name that would lead out' 2 file small -file-name ../../x
# One that the sender cannot judge is not stored there, and the program there learns it.
status 'a type that the peer does not have' 0 file small -file-type nosuch
waitfor 'its message' '[ "$(wc -l <got)" -eq 5 ]'
same 'it has no file' 'null ' "$(sed 1,4d got)"
check 'nothing was made outside' '[ ! -e x ] && [ ! -e in/x ]'
