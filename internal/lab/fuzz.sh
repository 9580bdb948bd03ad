#!/usr/bin/env bash
# Shares the given number of seconds out among all fuzz targets of the module. Or gives them to each, as many targets at a
# time as there are processors, and writes down in docs/reliability.md how many inputs were tried.
set -euo pipefail
seconds=${1:?usage: fuzz.sh SECONDS [each]}
page=docs/reliability.md

# Each line is a package and one target in it.
targets=$(go test -list '^Fuzz' ./... | awk '/^Fuzz/ { names[n++] = $1 } /^ok/ { while (n) print $2, names[--n] }')
if [ -z "$targets" ]; then
	echo 'no fuzz targets'
	exit
fi
count=$(wc -l <<<"$targets")
logs=$(mktemp -d)
trap 'rm -rf "$logs"' EXIT

# Before Go 1.27 a target can fail with nothing but "context deadline exceeded" when its time is up and the machine is
# busy (go.dev/issue/75804). An input that fails is always written down, and that is said.
only_out_of_time() {
	grep -qx ' *context deadline exceeded' "$1" && ! grep -qE 'Failing input|panic:|_test\.go:' "$1"
}

fuzz() { # PACKAGE TARGET TIME [FLAGS]
	local log=$logs/${1//\//-}.$2
	go test -run '^$' -fuzz "^$2\$" -fuzztime "$3" "${@:4}" "$1" </dev/null 2>&1 | tee "$log" || only_out_of_time "$log"
}

row() { # PACKAGE TARGET
	local inputs
	inputs=$(grep -oE 'execs: [0-9]+' "$logs/${1//\//-}.$2" | tail -n 1) || inputs=0 # it got no further than its seeds
	echo "| \`${1#*/}\` | \`$2\` | $seconds | ${inputs#execs: } |"
}

if [ "${2-}" != each ]; then
	each=$((seconds * 1000 / count))ms
	while read -r package target; do fuzz "$package" "$target" "$each"; done <<<"$targets"
	echo "$count targets fuzzed for $each each"
	exit
fi

export -f fuzz only_out_of_time
export logs
xargs -P "$(nproc)" -L 1 bash -euo pipefail -c 'fuzz "$1" "$2" "$0" -parallel 1' "${seconds}s" <<<"$targets"
{
	printf '| package | target | seconds | inputs tried |\n|---|---|---|---|\n'
	while read -r package target; do row "$package" "$target"; done <<<"$targets" | sort
} >"$logs/table"
awk -v table="$logs/table" '
	/<!-- fuzz: end -->/ { inside = 0 }
	!inside { print }
	/<!-- fuzz: begin -->/ { inside = 1; while ((getline line <table) > 0) print line }' "$page" >"$logs/page"
cp "$logs/page" "$page"
echo "$count targets fuzzed for ${seconds}s each, $(awk -F'|' '/Fuzz/ { n += $5 } END { print n }' "$logs/table") inputs"
