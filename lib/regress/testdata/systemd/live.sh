#!/bin/sh
# The units and the package, under a systemd that runs: boot.sh starts this as
# root, in a container of its own.
mkdir -p /run/aioc-out
exec >/run/aioc-out/log 2>&1
export HOME=/root PATH=/usr/sbin:/usr/bin:/sbin:/bin
# shellcheck source=../lib.sh
. "${0%/*}/../lib.sh"
cd /run/aioc-out || exit 1
server="-connector 127.0.0.1:10673" client="-connector pump7"

finish() {
	[ "$failed" = 0 ] || journalctl -b --no-pager -u 'aioc-*' | tail -n 60
	exit "$failed"
}
trap finish EXIT

# shellcheck disable=SC2086 # server and client are several words
{
	tell() { aioc-send $client -ack -wait -timeout 30s "$@"; }
	hear() { aioc-recv $server -timeout 30s "$@"; }
}
pid() { systemctl show -p MainPID --value "$1"; }
is() { [ "$(systemctl show -p ActiveState --value "$1")" = "$2" ]; }

# another UNIT PID: the unit runs in another process now
another() { [ "$(pid "$1")" != 0 ] && [ "$(pid "$1")" != "$2" ] && is "$1" active; }

# passes WORDS: a message goes from the client to the server
passes() {
	n=$((${n:-0} + 1))
	echo "$n" >message
	check "$1" 'tell -type reading <message'
	same 'and comes' "$n" "$(hear -type reading -n 1)"
}

# dropin UNIT LINE ...: lines for a section Service
dropin() {
	place=/etc/systemd/system/$1.service.d
	shift
	mkdir -p "$place"
	printf '%s\n' '[Service]' "$@" >"$place/test.conf"
	systemctl daemon-reload
}

# configure [PAIR]: the configuration of the server, with one more key
configure() {
	cat >/etc/aioc/server.json <<-END
		{
			"is_server": true, "server_sockaddr": ["127.0.0.1", 10673],
			"recv_message_types": ["reading", "photo"], "disk_persistence_recv": ["reading"]${1+, $1}
		}
	END
	chown aioc: /etc/aioc/server.json
}

# The package.
status 'the package is installed' 0 dpkg --no-triggers -i aioc.deb
same 'the user has its directories' 'aioc 755 aioc 750' "$(stat -c '%U %a' /var/tmp/aioconnectors /etc/aioc | xargs)"
configure
cat >/etc/aioc/client-pump7.json <<-'END'
	{
		"is_server": false, "server_sockaddr": ["127.0.0.1", 10673], "client_name": "pump7",
		"send_message_types": ["reading", "photo"], "disk_persistence_send": ["reading"]
	}
END
chown aioc: /etc/aioc/client-pump7.json
status 'certificates are made' 0 setpriv --reuid aioc --regid aioc --init-groups aioc-certs create

# Start, reload, kill.
status 'both are enabled and started' 0 systemctl enable --now aioc-server aioc-client@pump7
passes 'a message is sent'
check 'the status tells what it is' "systemctl status aioc-server | grep -q 'Status: .*10673'"
old=$(pid aioc-server)
status 'a reload succeeds' 0 systemctl reload aioc-server aioc-client@pump7
configure '"sendtimeout": 3'
status 'one with a mistake fails' 1 systemctl reload aioc-server
same 'and the server goes on' "$old" "$(pid aioc-server)"
check 'the journal has the mistake' "journalctl -b -u aioc-server | grep -q 'did you mean send_timeout'"
kill -HUP "$old"
waitfor 'the server to refuse it, too, as an error' "journalctl -b -u aioc-server -p err | grep -q 'configuration not read again'"
status 'a restart with it fails' 1 systemctl restart aioc-server
check 'and stays' 'sleep 3; is aioc-server failed'
configure
status 'it starts without it' 0 systemctl start aioc-server
for unit in aioc-server aioc-client@pump7; do
	old=$(pid "$unit")
	systemctl kill -s KILL "$unit"
	waitfor "$unit to be started again" "another '$unit' '$old'"
done
passes 'a message is sent after that'
dropin aioc-server 'WatchdogSec=2'
systemctl restart aioc-server
old=$(pid aioc-server)
kill -STOP "$old"
waitfor 'a server that hangs to be started again' "another aioc-server '$old'"
passes 'a message is sent after that'

# What it may write.
mkdir /srv/photos
chown aioc: /srv/photos
echo photo >one.jpg
configure '"file_recv_config": {"photo": {"target_directory": "/srv/photos"}}'
systemctl restart aioc-server
check 'a directory that is read-only is warned of' "journalctl -b -u aioc-server -p warning | grep -q 'cannot be stored in.*/srv/photos.*read-only'"
status 'a file is not stored there' 1 tell -type photo -file "$PWD/one.jpg"
dropin aioc-server 'ReadWritePaths=/srv/photos'
systemctl restart aioc-server
status 'with a drop-in it is' 0 tell -type photo -file "$PWD/one.jpg"
check 'as it was' 'cmp one.jpg /srv/photos/one.jpg'
cat >/usr/local/bin/aioc-hook <<-'END'
	#!/bin/sh
	echo "$AIOC_CLIENT" >>/var/lib/aioc/hook
END
chmod 755 /usr/local/bin/aioc-hook
configure '"hook_server_auth_client": "/usr/local/bin/aioc-hook"'
systemctl restart aioc-server
passes 'a message is sent when a hook is asked'
check 'it was asked' 'grep -q pump7 /var/lib/aioc/hook'
configure '"default_logger_dirpath": "/var/log/aioc"'
status 'a log can be below /var/log/aioc' 0 systemctl restart aioc-server
check 'it is there' 'grep -q listening /var/log/aioc/aioconnectors.log'
configure
systemctl restart aioc-server

# Stop.
echo last | tell -type reading -lines
# shellcheck disable=SC2086
aioc-recv $server -type reading -n 1 -- sh -c 'cat >got; touch begun; sleep 3; touch done' &
waitfor 'the message to be worked on' '[ -e begun ]'
status 'the server is stopped meanwhile' 0 systemctl stop aioc-server
check 'it has waited' '[ -e done ]'
wait

# The socket.
status 'the socket is enabled' 0 systemctl enable --now aioc-server.socket
waitfor 'the client to start the server by it' 'is aioc-server active'
passes 'a message is sent'
systemctl stop aioc-server.socket aioc-server

# The package again.
systemctl start aioc-server
old=$(pid aioc-server)
status 'the package is installed over itself' 0 dpkg --no-triggers -i aioc.deb
check 'the server was restarted' "another aioc-server '$old'"
passes 'a message is sent after that'
status 'the package is removed' 0 dpkg --no-triggers -r aioc
check 'nothing of it runs' '! pgrep -u aioc'
status 'and purged' 0 dpkg --no-triggers -P aioc
# shellcheck disable=SC2016 # it is for later
check 'nothing is enabled' '[ -z "$(find /etc/systemd/system -name "aioc-*" -type l)" ]'
check 'certificates stay' '[ -d /var/tmp/aioconnectors/certificates ]'
