# As in many a deploy.sh: one host after the other, each command a connection.
set -eu
for host in $MACHINES; do
    root=$FLEET/$host/srv/$NAME
    ssh "$host" "mkdir -p '$root/releases/$RELEASE'"
    scp -q -F "$SSH_CONFIG" "$ARCHIVE" "$host:$root/bundle.tar.gz"
    ssh "$host" "cd '$root' && tar xzf bundle.tar.gz -C 'releases/$RELEASE' && rm bundle.tar.gz && ln -sfn 'releases/$RELEASE' current"
done
