#!/usr/bin/env bash
# Shares the given number of seconds out among all fuzz targets of the module, or gives them to each.
set -euo pipefail
seconds=${1:?usage: fuzz.sh SECONDS [each]}

# Each line is a package and one target in it.
targets=$(go test -list '^Fuzz' ./... | awk '/^Fuzz/ { names[n++] = $1 } /^ok/ { while (n) print $2, names[--n] }')
if [ -z "$targets" ]; then
	echo 'no fuzz targets'
	exit
fi
count=$(wc -l <<<"$targets")
each=$((seconds * 1000 / count))ms
if [ "${2-}" = each ]; then
	each=${seconds}s
fi
log=$(mktemp)
trap 'rm -f "$log"' EXIT

# Before Go 1.27 a target can fail with nothing but "context deadline exceeded" when its time is up and the machine is
# busy (go.dev/issue/75804). An input that fails is always written down, and that is said.
only_out_of_time() {
	grep -qx ' *context deadline exceeded' "$log" && ! grep -qE 'Failing input|panic:|_test\.go:' "$log"
}

while read -r package target; do
	go test -run '^$' -fuzz "^$target\$" -fuzztime "$each" "$package" </dev/null 2>&1 | tee "$log" || only_out_of_time
done <<<"$targets"
echo "$count targets fuzzed for $each each"
