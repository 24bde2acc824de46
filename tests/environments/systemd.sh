# Becomes systemd as PID 1 of namespaces of its own. Arguments: Debian's tree; an empty directory to mount
# things in; uphold; its unit; a directory of further files for the root; a name for the cgroup.
set -e
tree=$1 at=$2 uphold=$3 service=$4 files=$5 cgroup=$6
# What is written goes with the namespace.
mount -t tmpfs tmpfs "$at"
mkdir "$at/cgroup" "$at/upper" "$at/work" "$at/root"
mount -t cgroup2 cgroup2 "$at/cgroup"
mkdir "$at/cgroup/$cgroup"
echo 0 > "$at/cgroup/$cgroup/cgroup.procs"
mount -t overlay overlay -o "lowerdir=$tree,upperdir=$at/upper,workdir=$at/work" "$at/root"
cp "$uphold" "$at/root/usr/bin/uphold"
cp "$service" "$at/root/etc/systemd/system/uphold.service"
cp -r "$files/." "$at/root/"
chroot "$at/root" systemctl --quiet enable uphold.service
exec unshare --fork --pid --mount --cgroup --uts --ipc --net --kill-child sh -ec '
  cd "$1"
  mount -t proc proc proc
  mount -t sysfs sysfs sys
  mount -t cgroup2 cgroup2 sys/fs/cgroup
  for dir in dev run tmp; do mount -t tmpfs -o mode=755 tmpfs $dir; done
  for device in null zero full random urandom tty; do touch dev/$device; mount --bind /dev/$device dev/$device; done
  mkdir dev/shm dev/pts
  pivot_root . mnt
  umount -l mnt
  exec env -i container=test PATH=/usr/sbin:/usr/bin:/sbin:/bin /lib/systemd/systemd --system \
    --log-target=console --show-status=no
' sh "$at/root"
