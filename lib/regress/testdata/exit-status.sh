#!/bin/sh
# The exit statuses that need no connector.
# shellcheck source=lib.sh
. "${0%/*}/lib.sh"

oneline() { [ "$(wc -l <err)" -eq 1 ]; }

status 'aioc-send without a connector' 69 sh -c 'echo 1 | aioc-send'
check 'it says so in one line' 'oneline'
status 'aioc-recv without a connector' 69 aioc-recv -n 1 -timeout 10s
check 'it says so in one line' 'oneline'
status 'a directory that is not there has no connector' 69 sh -c 'echo 1 | aioc-send -dir nowhere'

for name in aioc-server aioc-client; do
	status "$name with a file that is not there" 78 "$name" -t nothing.json
	check "$name names it" 'grep -q nothing.json err'

	echo '{"send_mesage_types": ["a"]}' >wrong.json
	status "$name with a key that is not known" 78 "$name" -t wrong.json
	check "$name names file, key, and the nearest key" \
		'grep wrong.json err | grep send_mesage_types | grep -q send_message_types'

	echo '{"send_message_types": ["a"]' >broken.json
	status "$name with a file that is not JSON" 78 "$name" -t broken.json
	check "$name names it" 'grep -q broken.json err'

	status "$name -print-config" 0 "$name" -tls off -print-config
	mv out printed.json
	status "$name takes what it printed" 0 "$name" -print-config printed.json
	check "$name prints the same again" 'cmp out printed.json'

	status "$name -t with what it printed" 0 "$name" -t printed.json
	check "$name -t leaves nothing behind" '! ls -d aioc_* .aioc_* 2>/dev/null | grep .'

	echo '{"use_ssl": 7, "a": 1, "a": 1}' >several.json
	status "$name with several mistakes" 78 "$name" -t several.json
	check "$name reports all of them" 'grep -q use_ssl err && grep -q "a: no such key" err && grep -q "a stands twice" err'

	mkdir -p loose && chmod 775 loose
	status "$name -t with a directory for the group" 77 "$name" -tls off -dir "$PWD/loose" -t
	check "$name -t says what to run" 'grep -q "chmod g-w" err'
	status "$name with a directory for the group" 77 "$name" -tls off -dir "$PWD/loose"
	check "$name says what to run" 'grep -q "chmod g-w" err'
	status "$name -t with a file for a directory" 78 "$name" -tls off -dir "$PWD/wrong.json" -t
	status "$name with a file for a directory" 78 "$name" -tls off -dir "$PWD/wrong.json"
	status "$name -t with an address of another host" 78 "$name" -tls off -t -set 'client_bind_ip="192.0.2.1"' -addr 192.0.2.1:10673
	if [ -c /dev/full ]; then
		status "$name -t on a full disk" 75 sh -c "$name -tls off -t >/dev/full"
	fi

	status "$name with a flag after the file" 2 "$name" printed.json -t
	check "$name says where flags belong" 'grep -q "flags come before the file" err'
	status "$name with an empty address" 2 "$name" -addr ''
	status "$name with the template and a check" 2 "$name" -template -t
	status "$name with a word for a list" 2 "$name" -set recv_message_types=reading
	check "$name says how to write it" 'grep -qF "[\"reading\"]" err'

	status "$name with a flag for no key" 2 "$name" -set 'no_such_key=1' -t
	status "$name with two files" 2 "$name" -config printed.json printed.json
done

status 'two ways to read standard input' 2 aioc-send -lines -raw
status 'two ways to print' 2 aioc-recv -raw -envelope
