# All hosts at once; what the release before has is linked there and not sent.
set -eu
link=${PREVIOUS:+--link-dest=../$PREVIOUS}
one() {
    root=$FLEET/$1/srv/$NAME
    rsync -a $link --rsync-path="mkdir -p '$root/releases' && rsync" "$STAGE/" "$1:$root/releases/$RELEASE/"
    ssh "$1" "cd '$root' && ln -sfn 'releases/$RELEASE' next && mv -T next current"
}
pids=
for host in $MACHINES; do
    one "$host" &
    pids="$pids $!"
done
for pid in $pids; do wait "$pid"; done
