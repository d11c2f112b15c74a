# Private sshds on loopback: each with a port, a host key and a home of its own. They end with the stdin of this script.
# Words: directory, sshd, the ssh of this machine, then for each host its port and that of the proxy before it.
set -eu
umask 077
dir=$1 sshd=$2 ssh=$3
shift 3
pids= n=0
trap 'kill $pids 2> /dev/null || :; wait' EXIT
trap 'exit 1' INT TERM
# Only for its separation of privileges, and only as root.
mkdir -p /run/sshd 2> /dev/null || :
mkdir "$dir/bin"
# As PEM and ECDSA, which every client reads.
key() { ssh-keygen -q -m PEM -t ecdsa -N '' -f "$1"; }
key "$dir/client"
while [ $# -gt 0 ]; do
    name=h$n own=$dir/h$n port=$1 proxy=$2
    mkdir -p "$own/srv" "$own/bin"
    key "$own/hostkey"
    # For those who insist on systemd: here nothing has to be started.
    printf '#!/bin/sh\nexit 0\n' > "$own/bin/systemctl"
    chmod +x "$own/bin/systemctl"
    cat > "$own/sshd_config" <<CONFIG
Port $port
ListenAddress 127.0.0.1
HostKey $own/hostkey
PidFile $own/pid
AuthorizedKeysFile $dir/client.pub
AuthenticationMethods publickey
PasswordAuthentication no
KbdInteractiveAuthentication no
UsePAM no
StrictModes no
PermitRootLogin yes
PrintMotd no
PrintLastLog no
MaxStartups 200:30:400
Subsystem sftp internal-sftp
SetEnv HOME=$own PATH=$own/bin:/usr/local/bin:/usr/bin:/bin
CONFIG
    cat >> "$dir/ssh_config" <<CONFIG
Host $name
  HostName 127.0.0.1
  HostKeyAlias $name
  Port $proxy
CONFIG
    printf '%s %s\n' "$name" "$(cut -d ' ' -f 1,2 "$own/hostkey.pub")" >> "$dir/known_hosts"
    "$sshd" -D -f "$own/sshd_config" -E "$own/log" < /dev/null > /dev/null &
    pids="$pids $!" n=$((n + 1))
    shift 2
done
cat >> "$dir/ssh_config" <<CONFIG
Host h*
  User $(id -un)
  IdentityFile $dir/client
  IdentitiesOnly yes
  UserKnownHostsFile $dir/known_hosts
  GlobalKnownHostsFile /dev/null
  StrictHostKeyChecking yes
CONFIG
printf '#!/bin/sh\nexec %s -F %s "$@"\n' "$ssh" "$dir/ssh_config" > "$dir/bin/ssh"
chmod +x "$dir/bin/ssh"
i=0
while [ $i -lt $n ]; do
    until [ -s "$dir/h$i/pid" ]; do
        for pid in $pids; do kill -0 "$pid" || { cat "$dir"/h*/log >&2; exit 1; }; done
        sleep 0.02
    done
    i=$((i + 1))
done
echo up
cat > /dev/null
