# All hosts at once. Its systemd is a program that says yes; see hosts.sh.
set -eu
{
    echo 'app = "bench"'
    echo 'hosts = ['
    n=0
    for host in $HOSTS; do
        echo "  { addr = \"$host\", root = \"$FLEET/$host/srv/$NAME\", sudo = false },"
        n=$((n + 1))
    done
    echo ']'
    printf '[build]\nartifact = "%s/payload"\n' "$STAGE"
    printf '[rollout]\nparallel = %s\n' "$n"
    printf '[service]\nscope = "user"\nexec_start = "{current}/payload/app"\n'
} > slipway.toml
exec slipway deploy
