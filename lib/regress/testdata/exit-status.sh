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

	status "$name with a flag for no key" 2 "$name" -set 'no_such_key=1' -t
	status "$name with two files" 2 "$name" -config printed.json printed.json
done

status 'two ways to read standard input' 2 aioc-send -lines -raw
status 'two ways to print' 2 aioc-recv -raw -envelope
