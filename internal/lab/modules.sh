#!/usr/bin/env bash
# Builds the drivers that the lab's kernel comes without, ntfs3.ko and exfat.ko, and prints the folder that holds them. They
# are made of the source that Debian made the installed user-mode-linux of, with the configuration that the package
# documents. They are kept in .cache/modules-VERSION, the version being that of the source.
set -euo pipefail
unset ARCH CROSS_COMPILE MAKEFLAGS MAKEOVERRIDES MFLAGS # of the make that calls this, or of somebody's other kernel
export LC_ALL=C

shipped=/usr/lib/uml/modules
config=/usr/share/doc/user-mode-linux/config.gz
apt=(apt-get -qq -o APT::Sandbox::User=root)

fail() { printf 'modules.sh: %s\n' "$@" >&2; exit 1; }

package=$(dpkg-query --show --showformat '${Version}' user-mode-linux)
version=$(dpkg-query --show --showformat '${Built-Using}' user-mode-linux | sed -nE 's/.*\blinux \(= ([^)]+)\).*/\1/p')
[ -n "$version" ] || fail "user-mode-linux $package does not say of which Linux it was built"
folder=$PWD/.cache/modules-$version
if [ -d "$folder" ]; then
	echo "$folder"
	exit
fi
source=linux-source-$(cut -d. -f1,2 <<<"$version")

mkdir -p .cache
work=$(mktemp -d "$PWD/.cache/modules.XXXXXX")
trap 'rm -rf "$work"' EXIT
cd "$work"

download() { "${apt[@]}" download "$source=$version" 2>>apt.log; }
if ! download && ! { "${apt[@]}" update 2>>apt.log && download; }; then
	cat apt.log >&2
	offered=$(apt-cache madison "$source" | awk '{ print $3 }' | sort -Vu | xargs)
	fail "user-mode-linux $package is Linux $version; of $source, apt has ${offered:-no version}" \
		"hint: have the sources of that version in apt, or a user-mode-linux that was built of one that it has"
fi

echo "building exfat and ntfs3 for user-mode-linux $package, of $source $version" >&2
dpkg-deb --fsys-tarfile "$source"_*.deb | tar --extract --to-stdout "./usr/src/$source.tar.xz" | tar --extract --xz
cd "$source"
zcat "$config" >.config
# As Debian's own kernels have them.
scripts/config --module EXFAT_FS --module NTFS3_FS --enable NTFS3_LZX_XPRESS --enable NTFS3_FS_POSIX_ACL
# The kernel itself is not built, and so modpost cannot know which symbols it has: a module that asks for another cannot be
# loaded.
quietly() { "$@" >>"$work/build.log" 2>&1 || { tail -n 40 "$work/build.log" >&2; fail "cannot build the drivers: $*"; }; }
quietly make ARCH=um olddefconfig
quietly make ARCH=um -j "$(nproc)" modules_prepare
quietly make ARCH=um -j "$(nproc)" fs/exfat/exfat.ko fs/ntfs3/ntfs3.ko

# What the kernel itself compares, and the size of the structure that differs first between two configurations.
identity() {
	modinfo --field vermagic "$1"
	readelf --sections --wide "$1" | awk '{ for (i = 1; i < NF; i++) if ($i == ".gnu.linkonce.this_module") print "struct module", $(i + 4) }'
}
want=$(identity "$(find "$shipped" -name '*.ko' -print -quit)")
mkdir modules
for driver in exfat ntfs3; do
	built=fs/$driver/$driver.ko
	got=$(identity "$built")
	[ "$got" = "$want" ] || fail "$driver.ko is of \"$got\" and not of \"$want\", as the modules in $shipped are"
	strip --strip-debug -o "modules/$driver.ko" "$built"
done
mv -T modules "$folder"
echo "$folder"
