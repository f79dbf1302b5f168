#!/bin/bash
# Installs the package under systemd, uses its services, and removes it.
exec >/package-test/log 2>&1
set -euxo pipefail

say() { echo "--- $*"; }
# `!` alone would not end the test.
not() { if "$@"; then return 1; fi; }
value() { systemctl show --property "$1" --value "$2"; }
fail() {
    systemctl status --no-pager 'tunnel-*' || true
    journalctl --no-pager --lines 50 || true
}
trap fail ERR
# Waits until a command succeeds.
until_true() {
    for _ in {1..300}; do
        if "$@"; then return; fi
        sleep 0.1
    done
    return 1
}
is() { [ "$(value "$1" "$2")" = "$3" ]; }
call() { tunnel call device grpc.health.v1.Health/Check -d '{}' | grep SERVING; }
clean_stop() {
    systemctl stop "$1"
    is Result "$1" success && is ExecMainStatus "$1" 0
}

# What an earlier package may have left on the machine outside.
dpkg --purge tunnel
dpkg --install /package-test/tunnel.deb
mapfile -t files < <(dpkg --listfiles tunnel | while read -r file; do [ -d "$file" ] || echo "$file"; done)
for unit in tunnel-gateway tunnel-agent; do
    systemd-analyze verify "$unit.service"
    # Of 100, where less is better.
    systemd-analyze security --no-pager --threshold=20 "$unit.service" >/dev/null
    not systemctl --quiet is-enabled "$unit"
    not systemctl --quiet is-active "$unit"
done
man --where tunnel-gateway tunnel-certs-init
test -s /usr/share/bash-completion/completions/tunnel
tunnel gateway --config /etc/tunnel/gateway.toml --check
say "installed ${#files[@]} files; no service was started"

# The agent's server is the gateway itself: a call without a key is for its own health service.
echo TUNNEL_AGENT_TO=127.0.0.1:7001 >/etc/default/tunnel-agent
systemctl start --no-block tunnel-agent
until_true is StatusText tunnel-agent "no tunnel: connecting"
is ActiveState tunnel-agent activating
say "an agent without a gateway is not ready"

systemctl enable --now tunnel-gateway
is StatusText tunnel-gateway serving
pid=$(value MainPID tunnel-gateway)
[ "$(stat --format %U "/proc/$pid")" = tunnel ]
is LimitNOFILE tunnel-gateway 1048576
# The machine outside may allow less; the program takes it all.
awk '/^Max open files/ { exit $4 != $5 }' "/proc/$pid/limits"
grep --extended-regexp 'Seccomp:\s+2' "/proc/$pid/status"
tunnel healthy --ready
until_true is ActiveState tunnel-agent active
is StatusText tunnel-agent "connected to 127.0.0.1:7000"
call
say "called a device, with the sandbox of the units"

systemctl reload tunnel-gateway tunnel-agent
tunnel deny other --reason test
test -s /var/lib/tunnel-gateway/denied.toml
call
is MainPID tunnel-gateway "$pid"
say "reloaded"

mkdir -p /etc/systemd/system/tunnel-gateway.service.d
printf '[Service]\nWatchdogSec=2\n' >/etc/systemd/system/tunnel-gateway.service.d/test.conf
systemctl daemon-reload
systemctl restart tunnel-gateway
kill -STOP "$(value MainPID tunnel-gateway)"
until_true is NRestarts tunnel-gateway 1
until_true is ActiveState tunnel-gateway active
until_true call
# Two intervals: the watchdog is content with a gateway that runs.
sleep 4
is NRestarts tunnel-gateway 1
say "a frozen gateway was restarted by the watchdog"

pid=$(value MainPID tunnel-gateway)
dpkg --install /package-test/tunnel.deb
is ActiveState tunnel-gateway active
not is MainPID tunnel-gateway "$pid"
until_true call
say "an upgrade restarted what ran"

clean_stop tunnel-agent
clean_stop tunnel-gateway
say "stopped cleanly at SIGTERM"

# The key is for root alone, and systemd hands it over.
tunnel certs init --dir /package-test/pki
tunnel certs server --dir /package-test/pki localhost
install --group tunnel --mode 640 /package-test/pki/server-localhost.pem /etc/tunnel/gateway.pem
printf '[Service]\nLoadCredential=tls.key:/package-test/pki/server-localhost-key.pem\n' \
    >/etc/systemd/system/tunnel-gateway.service.d/test.conf
cat >>/etc/tunnel/gateway.toml <<'SETTINGS'
tls-cert = "/etc/tunnel/gateway.pem"
tls-key = "/run/credentials/tunnel-gateway.service/tls.key"
SETTINGS
systemctl daemon-reload
systemctl start tunnel-gateway
until_true is StatusText tunnel-gateway serving
say "read its private key from LoadCredential="

rm /etc/tunnel/gateway.pem
dpkg --purge tunnel
not systemctl --quiet is-active tunnel-gateway
for file in "${files[@]}" /etc/tunnel /var/lib/tunnel-* /var/log/tunnel-* /usr/share/doc/tunnel \
    /etc/systemd/system/*/tunnel-*.service; do
    not [ -e "$file" ]
done
say "removed: nothing is left but the user"
touch /package-test/passed
