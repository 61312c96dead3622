#!/bin/bash
# Run a command beside a real S3 server: Ceph's radosgw with one monitor and one object store in memory.
#
#   [S3_PORT=7480] infra/radosgw.sh COMMAND...
#
# S3_ENDPOINT tells the command where; the access key is test, the secret key testsecret. Exit code: the command's.
# As root, on Debian with: apt-get install -y --no-install-recommends radosgw ceph-mon ceph-osd ceph-common
# Everything lives in a temporary folder and on the loopback device, and is gone when the command has ended.
set -euo pipefail

for tool in ceph ceph-authtool ceph-mon ceph-osd monmaptool radosgw radosgw-admin; do
  command -v "$tool" >/dev/null || {
    echo "$tool is missing: apt-get install -y --no-install-recommends radosgw ceph-mon ceph-osd ceph-common" >&2
    exit 2
  }
done

port=${S3_PORT:-7480}
folder=$(mktemp -d)
started=()
finish() {
  # At once: each would wait for the others to answer, and nothing of it is kept.
  for process in "${started[@]}"; do kill -KILL "$process" 2>/dev/null || true; done
  for process in "${started[@]}"; do wait "$process" 2>/dev/null || true; done
  rm -rf "$folder"
}
trap finish EXIT

fsid=$(cat /proc/sys/kernel/random/uuid)
osd=$(cat /proc/sys/kernel/random/uuid)
mkdir -p "$folder"/{run,mon,osd,rgw}
cat >"$folder/ceph.conf" <<CONF
[global]
fsid = $fsid
mon host = [v2:127.0.0.1:23300,v1:127.0.0.1:26789]
public network = 127.0.0.0/8
keyring = $folder/keyring
run dir = $folder/run
admin socket = $folder/run/\$name.asok
log file = $folder/run/\$name.log
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 1
osd crush chooseleaf type = 0
mon allow pool size one = true
[mon.a]
mon data = $folder/mon
[osd.0]
osd data = $folder/osd
osd objectstore = memstore
memstore device bytes = 4294967296
[client.rgw.a]
rgw frontends = beast endpoint=127.0.0.1:$port tcp_nodelay=1
rgw data = $folder/rgw
CONF
settings=(-c "$folder/ceph.conf")

{
  ceph-authtool -C "$folder/keyring" -n mon. --gen-key --cap mon 'allow *'
  for name in client.admin client.rgw.a osd.0; do
    ceph-authtool "$folder/keyring" -n "$name" --gen-key --cap mon 'allow *' --cap osd 'allow *' --cap mgr 'allow *'
  done
  monmaptool --create --addv a '[v2:127.0.0.1:23300,v1:127.0.0.1:26789]' --fsid "$fsid" "$folder/monmap"
  ceph-mon "${settings[@]}" --mkfs -i a --monmap "$folder/monmap" --keyring "$folder/keyring"
  ceph-mon "${settings[@]}" -i a -f &
  started+=($!)
  ceph "${settings[@]}" osd new "$osd"
  ceph-osd "${settings[@]}" -i 0 --mkfs --osd-uuid "$osd"
  ceph-osd "${settings[@]}" -i 0 -f &
  started+=($!)
  radosgw "${settings[@]}" -n client.rgw.a -f &
  started+=($!)
} >"$folder/run/start.log" 2>&1

failed() {
  echo "$1; the ends of its logs:" >&2
  tail -n 20 "$folder"/run/*.log >&2
  exit 1
}
answers() { (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; }

for _ in $(seq 600); do
  answers && break
  for process in "${started[@]}"; do
    kill -0 "$process" 2>/dev/null || failed "a process of Ceph has ended"
  done
  sleep 0.2
done
answers || failed "radosgw did not answer on port $port within two minutes"
radosgw-admin "${settings[@]}" -n client.rgw.a user create --uid=t --display-name=t \
  --access-key=test --secret-key=testsecret >/dev/null 2>>"$folder/run/start.log" || failed "radosgw takes no user"

S3_ENDPOINT=http://127.0.0.1:$port "$@"
