#!/bin/sh
# Makes a Debian package of the tree in bin/: make deb runs it. The same commit
# gives the same package, byte for byte, with the same Go.
set -eu
: "${GO:=go}" "${MAKE:=make}"

version=${VERSION:-}
if [ -z "$version" ] && [ -e .git ]; then
	version=$(git describe --tags --match 'v[0-9]*' --dirty 2>/dev/null || true)
	version=${version#v}
fi
version=${version:-1.0.0-dev}
# A Debian version has no more than one part after a hyphen, and ~ sorts first.
deb_version=$(printf '%s\n' "$version" | sed 's/-dev/~dev/; s/-/+/g')

# Times are those of the commit.
if [ -z "${SOURCE_DATE_EPOCH:-}" ]; then
	SOURCE_DATE_EPOCH=$(git log -1 --format=%ct 2>/dev/null || echo 0)
fi
export SOURCE_DATE_EPOCH

case $($GO env GOARCH) in
386) arch=i386 ;;
arm) arch=armhf ;;
ppc64le) arch=ppc64el ;;
mipsle) arch=mipsel ;;
mips64le) arch=mips64el ;;
*) arch=$($GO env GOARCH) ;;
esac
if [ "$($GO env GOOS)" != linux ]; then
	echo "deb: GOOS is $($GO env GOOS), and a Debian package is for linux" >&2
	exit 1
fi

umask 022
mkdir -p bin
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM
root=$work/root
$MAKE all install OUT="$work/out" DESTDIR="$root" PREFIX=/usr VERSION="$version" >"$work/log" 2>&1 || {
	cat "$work/log" >&2
	exit 1
}

doc=$root/usr/share/doc/aioc
mkdir -p "$doc" "$root/DEBIAN"
{
	echo 'Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/'
	echo
	echo 'Files: *'
	echo 'Copyright: the authors of aioc'
	echo 'License: Apache-2.0'
	echo ' On Debian systems the text of the license is in'
	echo ' /usr/share/common-licenses/Apache-2.0.'
} >"$doc/copyright"
{
	echo "aioc ($deb_version) unstable; urgency=medium"
	echo
	echo '  * See the history of the source.'
	echo
	echo " -- aioc <aioc@localhost>  $(date -u -R -d "@$SOURCE_DATE_EPOCH")"
} | gzip -9n >"$doc/changelog.gz"
install -m 644 README.md "$doc/README.md"
find "$root/usr/share/man" -type f -exec gzip -9n {} +
# For other service managers than Debian's.
rm -f "$root"/usr/share/aioc/*.rc

cat >"$root/DEBIAN/control" <<-CONTROL
	Package: aioc
	Version: $deb_version
	Architecture: $arch
	Maintainer: aioc <aioc@localhost>
	Installed-Size: $(du -k -s --apparent-size "$root/usr" | cut -f1)
	Section: net
	Priority: optional
	Suggests: jq
	Description: secure asynchronous message queue for the shell
	 Two daemons hold one connection between two hosts; small tools pipe JSON
	 into and out of them. Compatible with the Python program aioconnectors.
CONTROL
cat >"$root/DEBIAN/postinst" <<-'POSTINST'
	#!/bin/sh
	set -e
	if [ "$1" = configure ]; then
		if command -v systemd-sysusers >/dev/null; then
			systemd-sysusers aioc.conf
		elif ! getent passwd aioc >/dev/null; then
			useradd --system --user-group --home-dir /var/tmp/aioconnectors --no-create-home --shell /usr/sbin/nologin aioc
		fi
		if command -v systemd-tmpfiles >/dev/null; then
			systemd-tmpfiles --create aioc.conf || :
		else
			install -d -m 755 -o aioc -g aioc /var/tmp/aioconnectors
			install -d -m 750 -o aioc -g aioc /etc/aioc
		fi
		if [ -d /run/systemd/system ]; then
			systemctl --system daemon-reload || :
			# Those that run get the new program.
			systemctl try-restart aioc-server.service aioc-client.service 'aioc-client@*.service' || :
		fi
	fi
POSTINST
cat >"$root/DEBIAN/prerm" <<-'PRERM'
	#!/bin/sh
	set -e
	if [ "$1" = remove ] && [ -d /run/systemd/system ]; then
		systemctl stop aioc-server.socket aioc-server.service aioc-client.service 'aioc-client@*.service' || :
	fi
PRERM
cat >"$root/DEBIAN/postrm" <<-'POSTRM'
	#!/bin/sh
	set -e
	if [ -d /run/systemd/system ]; then
		systemctl --system daemon-reload || :
	fi
	# Certificates, tokens, waiting messages and /etc/aioc stay: they were not
	# part of the package.
POSTRM
chmod 755 "$root"/DEBIAN/p*
(cd "$root" && find usr -type f -exec md5sum {} + | LC_ALL=C sort -k 2) >"$root/DEBIAN/md5sums"
find "$root" -newermt "@$SOURCE_DATE_EPOCH" -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +
package=bin/aioc_${deb_version}_$arch.deb
dpkg-deb --root-owner-group -Zxz --build "$root" "$package" >/dev/null
echo "$package"
