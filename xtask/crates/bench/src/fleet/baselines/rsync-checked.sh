# As rsync.sh, and then what we do: every file is checked on the host, and the disk has it before the switch.
set -eu
link=${PREVIOUS:+--link-dest=../$PREVIOUS}
one() {
    root=$FLEET/$1/srv/$NAME
    rsync -a $link --rsync-path="mkdir -p '$root/releases' && rsync" "$STAGE/" "$1:$root/releases/$RELEASE/"
    ssh "$1" "
        set -e
        cd '$root/releases/$RELEASE'
        sha256sum --quiet -c SHA256SUMS
        sync -f .
        cd ../..
        ln -sfn 'releases/$RELEASE' next
        mv -T next current"
}
pids=
for host in $MACHINES; do
    one "$host" &
    pids="$pids $!"
done
for pid in $pids; do wait "$pid"; done
