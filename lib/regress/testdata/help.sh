#!/bin/sh
# All programs behave the same way when asked for help, and after a mistake.
# shellcheck source=lib.sh
. "${0%/*}/lib.sh"

dir=$(dirname "$(command -v aioc-send)")
for path in "$dir"/aioc-*; do
	name=${path##*/}

	status "$name -h succeeds" 0 "$name" -h
	check "$name -h prints its usage on stdout" "head -n 1 out | grep -q '^usage: $name'"
	check "$name -h has nothing to say on stderr" "! [ -s err ]"

	status "$name --help is the same" 0 "$name" --help
	check "$name --help prints its usage" "head -n 1 out | grep -q '^usage: $name'"

	status "$name -version succeeds" 0 "$name" -version
	check "$name -version is one line" "[ \"\$(wc -l <out)\" -eq 1 ]"
	check "$name -version has name, version and Go version" "grep -q '^$name [^ ][^ ]* (go[^)]*)\$' out"

	status "$name refuses a flag that it does not know" 2 "$name" -no-such-flag
	check "$name then prints nothing on stdout" "! [ -s out ]"
	check "$name then says which one" "head -n 1 err | grep -q '^$name: .*no-such-flag'"
	check "$name then says where help is" "[ \"\$(tail -n +2 err)\" = 'see $name -h' ]"
done
