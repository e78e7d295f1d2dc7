#!/bin/sh
# What the scripts share: read with . "${0%/*}/lib.sh"
#
# A script is run in an empty directory of its own, which AIOC_DIR names, with
# the programs in PATH. By hand: make, then in an empty directory
#   AIOC_DIR=$PWD PATH=/path/to/bin:$PATH sh /path/to/script.sh
#
# Its exit status is 0 when every claim held.

failed=0 server_pid=''
trap 'exit $failed' EXIT

# check WORDS COMMAND: COMMAND, in a subshell, ends with status 0
check() {
	if (eval "$2"); then
		echo "ok: $1"
	else
		echo "FAILED: $1"
		echo "        $2"
		failed=1
	fi
}

# same WORDS WANT GOT: both texts are the same
same() {
	if [ "$2" = "$3" ]; then
		echo "ok: $1"
	else
		echo "FAILED: $1"
		printf '   got: %s\n  want: %s\n' "$3" "$2"
		failed=1
	fi
}

# status WORDS WANT COMMAND [ARG ...]: the command ends with that exit status;
# what it prints is in the files out and err
status() {
	words=$1 want=$2
	shift 2
	got=0
	"$@" >out 2>err || got=$?
	if [ "$got" = "$want" ]; then
		echo "ok: $words"
	else
		echo "FAILED: $words"
		echo "        $*: status $got, want $want"
		sed 's/^/        /' out err
		failed=1
	fi
}

# waitfor WORDS COMMAND [SECONDS]: COMMAND is tried until its status is 0; the
# script ends when that takes longer than SECONDS, 30 unless given
waitfor() {
	tries=$((${3:-30} * 10))
	until (eval "$2") >/dev/null 2>&1; do
		tries=$((tries - 1))
		if [ "$tries" -le 0 ]; then
			echo "FAILED: waited in vain for $1"
			echo "        $2"
			failed=1
			exit 1
		fi
		sleep 0.1
	done
}

# server [FLAG ...]: starts aioc-server on a free port of this host, which is
# then in port; its process is server_pid, its log server.log
server() {
	port=$((20000 + $$ % 20000))
	while :; do
		aioc-server -addr "127.0.0.1:$port" "$@" >server.log 2>&1 &
		server_pid=$!
		waitfor 'the server to listen or to end' \
			"[ -S \"\$(ls -d \"$AIOC_DIR\"/aioc_server_* 2>/dev/null | head -n 1)\" ] || ! kill -0 $server_pid"
		kill -0 "$server_pid" 2>/dev/null && return
		if ! grep -q 'in use' server.log; then
			echo "FAILED: the server does not start"
			sed 's/^/        /' server.log
			failed=1
			exit 1
		fi
		port=$((port + 1))
	done
}

# client DIR NAME [FLAG ...]: starts aioc-client for the server on port and waits
# until it is connected; its process is client_pid, its log NAME.log
client() {
	client_dir=$1 client_name=$2
	shift 2
	aioc-client -dir "$client_dir" -addr "127.0.0.1:$port" -name "$client_name" "$@" >>"$client_name.log" 2>&1 &
	# shellcheck disable=SC2034 # for the scripts
	client_pid=$!
	waitfor 'the client to be connected' "echo 1 | aioc-send -dir '$client_dir' -type _ping -await -timeout 5s"
}

# stop PID ...: ends the processes and waits for them; one that is stopped
# goes on first
stop() {
	for pid in "$@"; do
		kill -CONT "$pid" 2>/dev/null
		kill "$pid" 2>/dev/null && wait "$pid"
	done
}
