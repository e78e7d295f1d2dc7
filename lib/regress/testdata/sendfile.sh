#!/bin/sh
# A file that only its user may read is sent through a connector that runs as
# another user, in its sandbox: the program passes it open. Only root can start
# both; of others the user is the same, and all else is too.
# shellcheck disable=SC2016 # what check and waitfor are given is expanded there
# shellcheck source=lib.sh
. "${0%/*}/lib.sh"

base=$AIOC_DIR/base pump7=$AIOC_DIR/pump7 home=$AIOC_DIR/home
mkdir -m 700 "$base" "$pump7" "$home" "$AIOC_DIR/in"
client_pid='' receiver=''
finish() {
	# shellcheck disable=SC2086 # they may be empty
	stop $receiver $client_pid $server_pid
	[ "$failed" = 0 ] || cat ./*.log
	exit "$failed"
}
trap finish EXIT

targets="file_recv_config={\"any\": {\"target_directory\": \"$PWD/in\", \"override_existing\": true}, \"d\": {\"target_directory\": \"$PWD/in\"}}"
AIOC_DIR=$base server -tls off -set "$targets" -set 'recv_message_types=["any","d"]'

root=no
if [ "$(id -u)" = 0 ] && command -v setpriv >/dev/null; then
	root=yes
	mkdir bin
	cp "$(command -v aioc-send)" "$(command -v aioc-client)" bin
	PATH=$PWD/bin:$PATH
	chmod 755 "$AIOC_DIR" "$pump7"
	chown 54321:54321 "$home"
	chown 54322:54322 "$pump7"
	alice() { (cd "$home" && exec setpriv --reuid=54321 --regid=54321 --clear-groups "$@"); }
	connector='setpriv --reuid=54322 --regid=54322 --clear-groups'
	strange=77
else
	alice() { (cd "$home" && exec "$@"); }
	connector='' strange=0
fi
start_client() {
	# shellcheck disable=SC2086 # it is several words or none
	$connector aioc-client -dir "$pump7" -addr "127.0.0.1:$port" -name pump7 -tls off \
		-set 'send_message_types=["any","d"]' -set 'disk_persistence_send=["d"]' >>client.log 2>&1 &
	client_pid=$!
	waitfor 'the client' "echo 1 | aioc-send -dir '$pump7' -type _ping -await -timeout 5s"
}
start_client
check 'the connector is in its sandbox' 'grep -qi sandbox client.log || aioc-ctl -dir "$pump7" status | grep -qi sandbox'
aioc-recv -dir "$base" -- sh -c 'echo "$AIOC_MESSAGE_TYPE ${AIOC_FILE##*/}" >>got' 2>>receive.log &
receiver=$!
file() { alice aioc-send -dir "$pump7" -timeout 60s -ack -file "$@"; }

for name in report big empty; do
	case $name in
	report) echo secret ;;
	big) dd if=/dev/urandom bs=1048576 count=3 2>/dev/null ;;
	esac >plain
	alice sh -c "umask 077; cat >$name" <plain
	status "$name, which only its user may read" 0 file "$name"
	check "$name is there" "cmp plain in/$name"
done

# What the connector cannot remove the program removes.
alice sh -c 'umask 077; echo x >gone'
status 'a file to be removed' 0 file gone -delete
check 'it is removed, and there' '[ ! -e home/gone ] && [ -f in/gone ]'
alice sh -c 'umask 077; echo y >gone'
status 'it is removed without -ack too' 0 alice aioc-send -dir "$pump7" -file gone -delete
waitfor 'it to be removed' '[ ! -e home/gone ]'

# A durable message is not lost with its connector, nor is its file.
stop "$server_pid"
echo 'what is kept' >plain
alice sh -c 'umask 077; cat >kept' <plain
status 'a durable message for a server that is away' 0 alice aioc-send -dir "$pump7" -type d -file kept
if [ $root = yes ]; then
	check 'a copy waits beside the spool' '[ "$(ls pump7/spool_*/copies | wc -l)" -eq 1 ]'
	check 'that is its own' '[ "$(stat -c %a:%u pump7/spool_*/copies/*)" = 600:54322 ]'
fi
# Who waits and is ended learns that the file goes on.
alice sh -c "echo \$\$ >pid; exec aioc-send -dir '$pump7' -type d -ack -file kept -file-name later" 2>later.err &
waiting=$!
waitfor 'it to be taken' 'grep -rqa later pump7/spool_*/server-files'
kill "$(cat home/pid)"
status "it is ended" 143 wait "$waiting"
check 'it says what becomes of the file' 'grep -q "goes on sending it\|may still be delivered" later.err'
kill -9 "$client_pid"
wait "$client_pid" 2>/dev/null
aioc-server -dir "$base" -addr "127.0.0.1:$port" -tls off -set "$targets" -set 'recv_message_types=["any","d"]' >>server.log 2>&1 &
server_pid=$!
start_client
waitfor 'the file' 'cmp plain in/kept'
waitfor 'its message, and that of which nobody waited for the end' 'grep -q "d kept" got && grep -q "d later" got'
waitfor 'the copy to be removed' '[ -z "$(ls pump7/spool_*/copies 2>/dev/null)" ]'

# What a program does not pass the connector opens for it, if it may.
alice sh -c 'umask 077; echo x >report'
status 'an envelope names a file' "$strange" alice sh -c \
	"echo '{\"message_type\": \"any\", \"data\": 1, \"with_file\": {\"src_path\": \"'\$PWD'/report\", \"dst_type\": \"any\", \"dst_name\": \"named\", \"delete\": false}}' | aioc-send -dir '$pump7' -envelope"

# Bad input, in words.
alice mkfifo fifo
alice mkdir folder
alice sh -c 'umask 777; echo x >closed'
bad() { # WORDS STATUS TEXT FLAG ...
	words=$1 want=$2 text=$3
	shift 3
	status "$words" "$want" file "$@"
	check "$words: it says so" "grep -q '$text' err && [ \"\$(wc -l <err)\" -eq 1 ]"
}
bad 'no file' 1 'no such file' missing
bad 'a directory' 1 'it is a directory: send an archive' folder
bad 'a fifo' 1 'it is a fifo' fifo
bad 'a device' 1 'it is a device' /dev/zero
bad 'a name that is too long' 65 'longer than 255 bytes' "$(printf '%0300d' 0)"
if [ $root = yes ]; then # without, this is tried as the user who runs the test, elsewhere
	bad 'one that may not be read' 77 'permission denied' closed
fi
