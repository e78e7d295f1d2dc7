#!/bin/sh
# A client gets its certificate or token, comes back with it, and loses it.
# shellcheck source=lib.sh
. "${0%/*}/lib.sh"

base=$AIOC_DIR/base pump7=$AIOC_DIR/pump7 thief=$AIOC_DIR/thief
mkdir -m 700 "$base" "$pump7" "$thief"
client_pid='' thief_pid=''
finish() {
	for pid in $client_pid $thief_pid $server_pid; do
		kill "$pid" 2>/dev/null && wait "$pid"
	done
	[ "$failed" = 0 ] || cat ./*.log
	exit "$failed"
}
trap finish EXIT

# arrives: a message from pump7 gets to base
arrives() {
	echo '1' | aioc-send -dir "$pump7" -wait -timeout 30s &&
		aioc-recv -dir "$base" -n 1 -timeout 30s >/dev/null
}

# end PID: tell it to stop, and wait until it has
end() { kill "$1" && wait "$1"; }

status 'no certificates: no start' 78 aioc-server -dir "$base" -addr 127.0.0.1:1
check 'it says how to make them' "grep -q 'aioc-certs create' err"
aioc-certs create "$base" 2>certs.log
status 'no certificates on the client: no start' 78 aioc-client -dir "$pump7" -addr 127.0.0.1:1 -name pump7
for dir in "$pump7" "$thief"; do
	aioc-certs pack client "$base" | tar -x -f - -C "$dir"
done

AIOC_DIR=$base server
client "$pump7" pump7
check 'a message arrives' arrives
key=$pump7/certificates/client/client-certs/pump7.key
check 'the client has a key of its own' "[ -s '$key' ]"
check 'the server does not have it' "[ ! -e '$base/certificates/server/client-certs/pump7.key' ]"
before=$(cksum "$key")
end "$client_pid"
client "$pump7" pump7
check 'it comes back' arrives
same 'with the same key' "$before" "$(cksum "$key")"

aioc-client -dir "$thief" -addr "127.0.0.1:$port" -name pump7 >thief.log 2>&1 &
thief_pid=$!
waitfor 'another client of the name to be refused' "grep -q 'server refuses this client' thief.log"
check 'the server says why' "grep -q 'name is taken' server.log"
check 'the first one stays' arrives
end "$thief_pid"
thief_pid=''

chmod 644 "$key"
end "$client_pid"
client_pid=''
status 'a key that others can read: no start' 77 aioc-client -dir "$pump7" -addr "127.0.0.1:$port" -name pump7
check 'it says what to do' "grep -q 'chmod 600' err"
chmod 600 "$key"
client "$pump7" pump7
check 'then it works' arrives

status 'a certificate is deleted' 0 aioc-certs delete pump7 "$base"
waitfor 'the client to be disconnected' "grep -q 'disconnected by a command' server.log"
waitfor 'it to be refused' "grep -q 'client refused.*not known here' server.log"
waitfor 'the client to say so' "grep -q 'server refuses this client' pump7.log"
end "$client_pid"
client_pid=''
end "$server_pid"
server_pid=''
check 'the server counted it' "grep -q 'counted since the start.*certificate' server.log"

# Tokens, with the same certificates.
AIOC_DIR=$base server -tls token
client "$pump7" pump7 -tls token
check 'with a token a message arrives' arrives
check 'the token is for its owner only' "[ -n \"\$(find '$pump7/pump7' -perm 600)\" ]"
check 'the server does not have it' "! grep -q \"\$(cat '$pump7/pump7')\" '$base/server_tokens.json'"
check 'nor do the logs' "! grep -q \"\$(cat '$pump7/pump7')\" ./*.log"
echo '{}' >"$base/server_tokens.json"
waitfor 'a client whose token is gone to be disconnected' "grep -q 'not welcome any more' server.log"
waitfor 'it to be refused' "grep -q 'wrong token' server.log"
