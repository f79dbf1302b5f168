#!/bin/bash
# Boots systemd over a copy of this machine's files that is thrown away, and tries a package in it.
# In a mount namespace of its own: outside.sh PACKAGE INSIDE DIRECTORY
# Exits with 77 if no container can be booted here.
set -euo pipefail
package=$1 inside=$2 directory=$3

mount --make-rprivate / || exit 77
mount -t tmpfs tmpfs "$directory" || exit 77
cd "$directory"
mkdir upper work root
mount -t overlay overlay -o lowerdir=/,upperdir=upper,workdir=work root || exit 77
# Nothing but the test is started, and the machine is not set up as new.
rm -f root/etc/systemd/system/*.wants/*
# It forbids packages to restart services, on machines without systemd.
rm -f root/usr/sbin/policy-rc.d
echo 0123456789abcdef0123456789abcdef >root/etc/machine-id
ln -sf /dev/null root/etc/systemd/system/systemd-firstboot.service
mkdir -p root/package-test root/var/tmp
cp "$package" root/package-test/tunnel.deb
cp "$inside" root/package-test/inside.sh
cat >root/etc/systemd/system/package-test.service <<'UNIT'
[Service]
Type=oneshot
ExecStart=/bin/bash /package-test/inside.sh
ExecStopPost=/bin/systemctl --force poweroff
UNIT

options=(--quiet --private-network --directory root)
cgroups=()
if [ ! -d /run/systemd/system ]; then
    # No systemd outside, which would give the container a cgroup.
    options+=(--register=no --keep-unit)
    for name in payload supervisor; do
        for hierarchy in systemd unified; do
            group=/sys/fs/cgroup/$hierarchy/$name
            [ -d "$group" ] || cgroups+=("$group")
        done
    done
fi
timeout --kill-after=10 180 systemd-nspawn "${options[@]}" --boot systemd.unit=package-test.service \
    </dev/null >boot.log 2>&1 || true
for group in "${cgroups[@]}"; do
    find "$group" -depth -type d -exec rmdir {} + 2>/dev/null || true
done
if [ ! -e root/package-test/log ]; then
    tail -n 40 boot.log
    exit 77
fi
if [ ! -e root/package-test/passed ]; then
    tail -n 40 boot.log
    cat root/package-test/log || true
    exit 1
fi
grep '^--- ' root/package-test/log
