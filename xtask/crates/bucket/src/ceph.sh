# One monitor, one OSD on a file, one gateway, all on loopback. It is up when it says so, and ends with its stdin.
# Words: directory, ports of the monitor (v2, v1) and of the gateway, more lines of the gateway's configuration.
set -eu
dir=$1 v2=$2 v1=$3 gateway=$4 more=$5
mkdir -p "$dir/mon" "$dir/osd" "$dir/run" "$dir/log"
conf=$dir/ceph.conf
if [ ! -f "$dir/made" ]; then
    rm -rf "$dir/mon" "$dir/osd" "$dir/disk"; mkdir "$dir/mon" "$dir/osd"
    fsid=$(cat /proc/sys/kernel/random/uuid)
    cat > "$conf" <<CONF
[global]
fsid = $fsid
mon host = [v2:127.0.0.1:$v2,v1:127.0.0.1:$v1]
public network = 127.0.0.0/8
public addr = 127.0.0.1
cluster addr = 127.0.0.1
auth cluster required = none
auth service required = none
auth client required = none
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 4
osd pool default pg autoscale mode = off
osd crush chooseleaf type = 0
mon allow pool size one = true
mon max pg per osd = 2000
run dir = $dir/run
crash dir = $dir/run
admin socket = $dir/run/\$name.asok
pid file = $dir/run/\$name.pid
log file = $dir/log/\$name.log
[mon]
mon data = $dir/mon
mon cluster log file = $dir/log/cluster.log
mon data avail crit = 1
mon data avail warn = 2
[osd]
osd data = $dir/osd
osd objectstore = bluestore
bluestore block path = $dir/disk
bluestore block create = true
bluestore block size = 8589934592
osd memory target = 939524096
osd class load list = *
[client.rgw]
keyring = $dir/none
# Without authentication the secure mode of the messenger cannot be agreed on.
ms mon client mode = crc
rgw frontends = beast endpoint=127.0.0.1:$gateway
rgw enable usage log = false
rgw thread pool size = 64
$more
CONF
    monmaptool --create --clobber --addv a "[v2:127.0.0.1:$v2,v1:127.0.0.1:$v1]" --fsid "$fsid" "$dir/monmap" > "$dir/log/out" 2>&1
    ceph-mon --mkfs -i a --monmap "$dir/monmap" -c "$conf" >> "$dir/log/out" 2>&1
fi
pids=
# The gateway first: it waits for nothing when it has nobody to ask.
end() { kill $pids 2>/dev/null; wait $pids 2>/dev/null || :; }
trap end EXIT
trap 'exit 1' INT TERM
ceph-mon -f -i a -c "$conf" < /dev/null >> "$dir/log/out" 2>&1 & pids=$!
if [ ! -f "$dir/made" ]; then
    osd=$(cat /proc/sys/kernel/random/uuid)
    ceph -c "$conf" --connect-timeout 30 osd new "$osd" >> "$dir/log/out" 2>&1
    ceph-osd -i 0 --mkfs --osd-uuid "$osd" -c "$conf" >> "$dir/log/out" 2>&1
    : > "$dir/made"
fi
ceph-osd -f -i 0 -c "$conf" < /dev/null >> "$dir/log/out" 2>&1 & pids="$! $pids"
radosgw -f -n client.rgw -c "$conf" < /dev/null >> "$dir/log/out" 2>&1 & pids="$! $pids"
if [ ! -f "$dir/user" ]; then
    radosgw-admin -n client.rgw -c "$conf" user create --uid=ci --display-name=ci --access-key=localkey --secret-key=localsecret > "$dir/user.made" 2>> "$dir/log/out"
    mv "$dir/user.made" "$dir/user"
fi
echo up
# Whoever started us holds the other end: it closes however that process ends.
cat > /dev/null
