#!/bin/sh
# boot.sh PACKAGE: boots a container with systemd, whose files are those of this
# host and go with it when it ends, and runs live.sh in it; make systemd runs this.
# It needs root, and systemd-nspawn of the package systemd-container.
set -eu
here=$(cd "${0%/*}/.." && pwd) package=$(realpath "$1")
if [ "$(id -u)" != 0 ]; then
	echo "systemd: not root: a container cannot be booted" >&2
	exit 1
fi
if ! command -v systemd-nspawn >/dev/null; then
	echo "systemd: systemd-nspawn is missing: install the package systemd-container" >&2
	exit 1
fi
# With mounts that nobody else sees.
if [ "${AIOC_MOUNTS:-}" = "" ]; then
	AIOC_MOUNTS=own exec unshare --mount "$0" "$package"
fi

work=$(mktemp -d)
groups=''
# shellcheck disable=SC2317 # the trap calls it
finish() {
	for group in $groups; do
		echo $$ >"${group%/*}/cgroup.procs" || :
		find "$group" -depth -type d -exec rmdir {} + 2>/dev/null || :
	done
	cd /
	umount "$work/root" "$work" 2>/dev/null || :
	rmdir "$work" || :
}
trap finish EXIT
trap 'exit 1' HUP INT TERM

# The files of this host below, what is written above, in memory.
mount -t tmpfs -o mode=755 tmpfs "$work"
mkdir "$work/up" "$work/under" "$work/root" "$work/out"
mount -t overlay -o "lowerdir=/,upperdir=$work/up,workdir=$work/under" overlay "$work/root"
# As if just installed: no services, nothing of aioc.
rm -rf "$work"/root/etc/systemd/system/*.wants/* "$work"/root/etc/systemd/system/aioc-* \
	"$work/root/usr/sbin/policy-rc.d" "$work/root/etc/aioc" "$work/root/var/tmp/aioconnectors"
sed -i '/^aioc:/d' "$work/root/etc/passwd" "$work/root/etc/group" "$work/root/etc/shadow"
rm -f "$work/root/etc/machine-id"
# Nobody makes a network in it that could be waited for.
for unit in systemd-networkd NetworkManager ifupdown; do
	ln -sf /dev/null "$work/root/etc/systemd/system/$unit-wait-online.service"
done
cp "$package" "$work/out/aioc.deb"

# The filter of the container would keep Landlock from the daemons.
set -- --quiet --system-call-filter='landlock_create_ruleset landlock_add_rule landlock_restrict_self' --directory="$work/root" --boot --private-network --console=pipe \
	--bind="$work/out:/run/aioc-out" --bind-ro="$here:/run/aioc-test"
if ! [ -d /run/systemd/system ]; then
	# Nobody keeps the control groups of this host.
	set -- "$@" --register=no --keep-unit
	for top in /sys/fs/cgroup /sys/fs/cgroup/systemd /sys/fs/cgroup/unified; do
		if [ -e "$top/cgroup.procs" ]; then
			mkdir -p "$top/aioc-test"
			echo $$ >"$top/aioc-test/cgroup.procs"
			groups="$groups $top/aioc-test"
		fi
	done
fi
status=0
timeout -k 10 "${AIOC_TIME:-900}" systemd-nspawn "$@" systemd.run=/run/aioc-test/systemd/live.sh \
	systemd.run_success_action=exit systemd.run_failure_action=exit </dev/null >"$work/out/console" 2>&1 || status=$?
if [ -e "$work/out/log" ]; then
	cat "$work/out/log"
else
	cat "$work/out/console"
fi
exit "$status"
