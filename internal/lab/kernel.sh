#!/bin/sh
# kernel.sh FOLDER puts the newest User-mode Linux of Debian into FOLDER: linux.uml, the C library it needs, and its modules.
# Since 6.16 its processes run under seccomp instead of ptrace, and start in a third of the time. Where there is none to be
# had, FOLDER stays away, machines boot the host's own kernel, of the package user-mode-linux, and the status is 0 all the same.
set -eu
folder=$1
if "$folder/linux.uml" --version >/dev/null 2>&1; then
	exit
fi
rm -rf "$folder" "$folder.new"
if linux.uml --help 2>/dev/null | grep -q '^seccomp='; then
	exit # the host's own is new enough
fi
give_up() {
	rm -rf "$folder" "$folder.new"
	echo 'lab: there is no newer User-mode Linux to be had; programs start several times slower in machines' >&2
	exit 0
}
trap give_up EXIT
mkdir -p "$folder.new/lists/partial" "$folder.new/archives/partial"
new=$(cd "$folder.new" && pwd)

# The mirror is the host's. The host's own lists of packages stay as they are. A mirror that is behind will do.
get() {
	apt-get -qq -o Dir::Etc::SourceList="$new/sources" -o Dir::Etc::SourceParts=- -o Dir::State::Lists="$new/lists" \
		-o Dir::Cache="$new" -o Debug::NoLocking=1 -o APT::Sandbox::User=root -o APT::Update::Post-Invoke= \
		-o APT::Update::Post-Invoke-Success= -o Acquire::Languages=none -o Acquire::Check-Valid-Until=false "$@"
}
fetch() {
	echo "deb $mirror $1 main" >"$new/sources"
	get update && (cd "$new" && get download user-mode-linux libc6)
}
mirror() { apt-get "$@" indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Origin: Debian' 'Component: main' | head -n 1; }
mirror=$(mirror)
if [ -z "$mirror" ]; then # the host has sources, but no lists of what is there
	lists="-o Dir::State::Lists=$new/lists -o Debug::NoLocking=1 -o APT::Sandbox::User=root"
	apt-get -qq $lists update >/dev/null
	mirror=$(mirror $lists)
fi
try=1
until fetch testing >/dev/null || fetch unstable >/dev/null; do
	[ "$((try += 1))" -le 3 ] # a mirror that is being written to is whole a little later
	sleep 10
done

for archive in "$new"/*.deb; do
	dpkg-deb --extract "$archive" "$new/root"
done
loader=$(find "$new/root" -name 'ld-linux*.so.*' -type f)
mkdir "$new/lib"
mv "$loader" "${loader%/*}/libc.so.6" "$new/lib"
mv "$new/root/usr/lib/uml/modules" "$new/root/usr/bin/linux.uml" "$new"
find "$new" -mindepth 1 -maxdepth 1 ! -name lib ! -name modules ! -name linux.uml -exec rm -rf {} +
final=$(cd "${folder%/*}" && pwd)/${folder##*/}
patchelf --set-interpreter "$final/lib/${loader##*/}" --set-rpath "$final/lib" "$new/linux.uml"
mv "$new" "$folder"
"$folder/linux.uml" --version >/dev/null
trap - EXIT
