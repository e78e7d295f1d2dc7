#!/bin/sh
# What the scripts for aioc-bridge(7) share: read with . "${0%/*}/lib.sh"
#
# RECIPES names a directory with the recipes of the page, each in a file. The
# broker is stopped and started by the script; here are both connectors: the
# bridge is at the server, in the directory base, and messages come from the
# client pump7 and go to it.
# shellcheck source=../lib.sh
. "${0%/*}/../lib.sh"

base=$AIOC_DIR/base pump7=$AIOC_DIR/pump7
export XDG_CONFIG_HOME="$AIOC_DIR/config" # what the tools find is not that of the user
mkdir -m 700 "$base" "$pump7" "$XDG_CONFIG_HOME"
client_pid='' broker_pid='' bridges=''

# need PROGRAM ...: the script fails without these
need() {
	for program in "$@"; do
		if ! command -v "$program" >/dev/null; then
			echo "FAILED: $program is missing: the recipes run with the real programs (see .ci/run)"
			failed=1
			exit 1
		fi
	done
}

finish() {
	for bridge in $bridges; do
		endbridge "$bridge"
	done
	# shellcheck disable=SC2086 # they may be empty
	stop $broker_pid $server_pid $client_pid
	[ "$failed" = 0 ] || tail -n 30 ./*.log
	exit "$failed"
}
trap finish EXIT

# connectors: starts both, with the types reading and order
connectors() {
	AIOC_DIR=$base server -tls off -set 'recv_message_types=["reading"]' -set 'send_message_types=["order"]'
	startclient
}

startclient() {
	client "$pump7" pump7 -tls off -set 'recv_message_types=["order"]' -set 'send_message_types=["reading"]'
}

# bridge NAME: runs a recipe of the page in the background; its process, which
# leads a group, is in the file NAME.pid. It ends when this script has, whatever
# ended it. A recipe has half a minute for a broker that hangs; the test gives it
# three seconds.
bridge() {
	sed 's/-limit [0-9]*s/-limit 3s/' "$RECIPES/$1" >"$1.run"
	rm -f "$1.pid"
	cat >"$1.group" <<-END
		cd '$RECIPES' || exit
		(
			while kill -0 $$; do sleep 1; done
			kill -KILL -\$\$
		) 2>/dev/null &
		echo \$\$ >'$AIOC_DIR/$1.pid'
		exec sh '$AIOC_DIR/$1.run'
	END
	AIOC_DIR=$base setsid sh "$1.group" >>"$1.log" 2>&1 &
	waitfor "the bridge $1 to start" "[ -s '$1.pid' ]"
	bridges="$bridges $1"
}

# endbridge NAME [SIGNAL]: ends it and all that it has started
endbridge() {
	[ ! -s "$1.pid" ] || kill "-${2:-TERM}" "-$(cat "$1.pid")" 2>/dev/null
	rm -f "$1.pid"
}

# recipe NAME: runs a recipe of the page that ends by itself
recipe() { (cd "$RECIPES" && AIOC_DIR=$base sh "./$1"); }

# send FILE [FLAG ...]: a message from pump7
send() {
	message=$1
	shift
	aioc-send -dir "$pump7" -type reading -raw -wait -ack -timeout 30s "$@" <"$message"
}

# waiting N: so many messages are at the server, not acknowledged by a bridge:
# another receiver gets them once the bridge has ended
waiting() {
	aioc-recv -dir "$base" -type reading -drain -timeout 30s >left && [ "$(wc -l <left)" -eq "$1" ]
}

# payloads: messages that something on the way could alter, as files pay.*
payloads() {
	printf '{"temp":21.5}' >pay.json
	printf 'two\nlines\n\n' >pay.lines
	printf '\n' >pay.newline
	printf 'a\0b\0\n\0' >pay.nul
	printf '{{.Count}} {{{{ID}} {{{ }} {{/* {{"' >pay.template
	printf '\377\376\200\r\n\t\033[31m' >pay.bytes
	# shellcheck disable=SC2016,SC1003 # they are to stay as they are
	printf '%s' '"$(id)" `id` '\''; \n \x41 %s %d \\' >pay.shell
	printf '%s' '-5' >pay.option
	printf '%s' '@/etc/passwd' >pay.file
	printf '%s' '!nil!' >pay.nil
	printf '' >pay.empty
	i=0
	while [ "$i" -lt 2000 ]; do
		i=$((i + 1))
		echo "line $i of a message that is large, {{ but not too large"
	done | head -c 90000 >pay.large
}
