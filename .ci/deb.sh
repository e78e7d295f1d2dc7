#!/bin/sh
# Makes a Debian package of the tree in bin/: make deb runs it. The same commit
# gives the same package, byte for byte, with the same Go. DEBFULLNAME and
# DEBEMAIL say who distributes it.
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
maintainer="${DEBFULLNAME:-aioc} <${DEBEMAIL:-aioc@localhost}>"
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
	echo "Copyright: $(date -u -d "@$SOURCE_DATE_EPOCH" +%Y) the aioc authors"
	echo 'License: Apache-2.0'
	echo ' On Debian systems the text of the license is in'
	echo ' /usr/share/common-licenses/Apache-2.0.'
} >"$doc/copyright"
{
	echo "aioc ($deb_version) unstable; urgency=medium"
	echo
	echo '  * See the history of the source.'
	echo
	echo " -- $maintainer  $(date -u -R -d "@$SOURCE_DATE_EPOCH")"
} | gzip -9n >"$doc/changelog.gz"
install -m 644 README.md "$doc/README.md"
find "$root/usr/share/man" -type f -exec gzip -9n {} +
# For other service managers than Debian's.
rm -f "$root"/usr/share/aioc/*.rc
# What lintian(1) is to accept.
mkdir -p "$root/usr/share/lintian/overrides"
cat >"$root/usr/share/lintian/overrides/aioc" <<-'OVERRIDES'
	# Programs in Go are.
	aioc: statically-linked-binary [usr/bin/*]
	# Scripts for those who use OpenRC; it is not needed otherwise.
	aioc: unusual-interpreter /sbin/openrc-run [usr/share/aioc/*]
	# Where the directory is, by tradition; systemd-tmpfiles or mkdir makes it, and
	# neither follows a link.
	aioc: possibly-insecure-handling-of-tmp-files-in-maintainer-script /var/tmp *
OVERRIDES

# In KiB, as dpkg counts, whatever the file system.
size=$(find "$root/usr" -printf '%y %s\n' |
	awk '{ n += $1 == "f" ? int(($2 + 1023) / 1024) : 1 } END { print n }')
cat >"$root/DEBIAN/control" <<-CONTROL
	Package: aioc
	Version: $deb_version
	Architecture: $arch
	Maintainer: $maintainer
	Installed-Size: $size
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
			# What is there already may be anybody's in /var/tmp: it is left alone.
			if mkdir -m 755 /var/tmp/aioconnectors 2>/dev/null; then
				chown -h aioc:aioc /var/tmp/aioconnectors
			fi
			if mkdir -m 750 /etc/aioc 2>/dev/null; then
				chown -h aioc:aioc /etc/aioc
			fi
		fi
		if [ -d /run/systemd/system ]; then
			systemctl --system daemon-reload >/dev/null || :
			# Those that run get the new program.
			deb-systemd-invoke try-restart aioc-server.service aioc-client.service 'aioc-client@*.service' || :
		fi
	fi
POSTINST
cat >"$root/DEBIAN/prerm" <<-'PRERM'
	#!/bin/sh
	set -e
	if [ "$1" = remove ] && [ -d /run/systemd/system ]; then
		deb-systemd-invoke stop aioc-server.socket aioc-server.service aioc-client.service 'aioc-client@*.service' || :
	fi
PRERM
cat >"$root/DEBIAN/postrm" <<-'POSTRM'
	#!/bin/sh
	set -e
	if [ "$1" = purge ]; then
		# What systemctl enable has made.
		rm -f /etc/systemd/system/*.wants/aioc-server.service /etc/systemd/system/*.wants/aioc-server.socket \
			/etc/systemd/system/*.wants/aioc-client.service /etc/systemd/system/*.wants/aioc-client@*.service
		for dir in /etc/aioc /var/tmp/aioconnectors /var/lib/aioc /var/log/aioc; do
			[ -d "$dir" ] || continue
			# Certificates, tokens, waiting messages and configurations were
			# not part of the package.
			rmdir "$dir" 2>/dev/null || echo "aioc: $dir is not empty and stays: remove it if nobody needs it"
		done
	fi
	if [ -d /run/systemd/system ]; then
		systemctl --system daemon-reload >/dev/null || :
	fi
POSTRM
chmod 755 "$root"/DEBIAN/p*
(cd "$root" && find usr -type f -exec md5sum {} + | LC_ALL=C sort -k 2) >"$root/DEBIAN/md5sums"
find "$root" -newermt "@$SOURCE_DATE_EPOCH" -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +
package=bin/aioc_${deb_version}_$arch.deb
dpkg-deb --root-owner-group -Zxz --build "$root" "$package" >/dev/null
echo "$package"
