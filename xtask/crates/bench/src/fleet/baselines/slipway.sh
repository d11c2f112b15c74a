# All hosts at once. Its systemd is a program that says yes, see hosts.sh. It has a temporary file per app and host, and
# all hosts are one machine here, so each host has an app of its own.
set -eu
pids=
for host in $MACHINES; do
    cat > "$host.toml" <<CONFIG
app = "bench-$host"
hosts = [{ addr = "$host", root = "$FLEET/$host/srv/$NAME", sudo = false }]
[build]
artifact = "$STAGE/payload"
[service]
scope = "user"
exec_start = "{current}/payload/app"
CONFIG
    slipway deploy --config "$host.toml" &
    pids="$pids $!"
done
for pid in $pids; do wait "$pid"; done
