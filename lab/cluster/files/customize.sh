# Turns a fresh Debian root file system ($1) into what the nodes and the load balancer start from.
set -eu
root=$1

# The machine's name, hosts and name servers are podman's to write.
echo lab > "$root/etc/hostname"
: > "$root/etc/machine-id"

# Root enters with the cluster's key only; every node gets a host key of its own.
cat > "$root/etc/ssh/sshd_config.d/lab.conf" <<'EOF'
HostKey /etc/ssh/ssh_host_ed25519_key
PermitRootLogin prohibit-password
PasswordAuthentication no
UseDNS no
EOF
rm -f "$root"/etc/ssh/ssh_host_*
mkdir -p -m 0700 "$root/root/.ssh"
chroot "$root" usermod -p '*' root

# Debian's containerd package brings a bridge of its own to the container network's folder.
rm -f "$root"/etc/cni/net.d/*

# The kernel is the host's: nothing here may load its modules or write its settings, and the host
# has no console to spare.
systemctl --quiet --root="$root" mask systemd-sysctl.service systemd-modules-load.service \
    modprobe@.service proc-sys-fs-binfmt_misc.automount dev-hugepages.mount \
    sys-fs-fuse-connections.mount console-getty.service getty@.service getty.target \
    apt-daily.timer apt-daily-upgrade.timer e2scrub_all.timer e2scrub_reap.service fstrim.timer \
    dpkg-db-backup.timer
# Installed for the load balancer, which starts it itself.
systemctl --quiet --root="$root" disable haproxy.service
systemctl --quiet --root="$root" enable ssh.service containerd.service
