#!/bin/sh
# The recipes of aioc-bridge(7) for Kafka are shell; there is no Kafka here.
# shellcheck source=../lib.sh
. "${0%/*}/../lib.sh"

for recipe in kafka-out to-kafka kafka-in from-kafka; do
	check "$recipe is there" "[ -s '$RECIPES/$recipe' ]"
	status "$recipe is shell" 0 sh -n "$RECIPES/$recipe"
done
