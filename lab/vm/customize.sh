# Turns a fresh Debian root file system ($1) into a node that preflight finds nothing wrong with.
set -eu
root=$1

echo lab > "$root/etc/hostname"
printf '127.0.0.1 localhost\n::1 localhost ip6-localhost\n' > "$root/etc/hosts"
echo '/dev/vda / ext4 errors=remount-ro 0 1' > "$root/etc/fstab"

# Addresses and name servers come by DHCP, names are resolved through the stub.
cat > "$root/etc/systemd/network/10-lab.network" <<'EOF'
[Match]
Type=ether

[Network]
DHCP=yes
EOF
ln -sf ../run/systemd/resolve/stub-resolv.conf "$root/etc/resolv.conf"

# Root enters with the lab's key only. PAM would start a session of logind and a user manager for
# every connection, which costs seconds under emulation.
cat > "$root/etc/ssh/sshd_config.d/lab.conf" <<'EOF'
HostKey /etc/ssh/ssh_host_ed25519_key
PermitRootLogin prohibit-password
PasswordAuthentication no
UsePAM no
UseDNS no
EOF
rm -f "$root"/etc/ssh/ssh_host_*
chmod 0700 "$root/root"
mkdir -p -m 0700 "$root/root/.ssh"
# sshd refuses accounts whose password is locked.
chroot "$root" usermod -p '*' root

# Automatic upgrades are installed, as on most nodes, and off.
cat > "$root/etc/apt/apt.conf.d/20auto-upgrades" <<'EOF'
APT::Periodic::Update-Package-Lists "0";
APT::Periodic::Unattended-Upgrade "0";
EOF
chroot "$root" systemctl --quiet disable \
    apt-daily.timer apt-daily-upgrade.timer unattended-upgrades.service
chroot "$root" systemctl --quiet enable systemd-networkd systemd-resolved systemd-timesyncd ssh

# Nothing that runs by the calendar may wake up when a machine is restored days later; the rest
# only makes the boot longer.
chroot "$root" systemctl --quiet mask e2scrub_all.timer e2scrub_reap.service fstrim.timer \
    dpkg-db-backup.timer man-db.timer logrotate.timer systemd-networkd-wait-online.service \
    getty@tty1.service serial-getty@ttyS0.service modprobe@drm.service modprobe@efi_pstore.service

chroot "$root" systemd-machine-id-setup > /dev/null 2>&1
rm -rf "$root"/usr/share/doc/* "$root"/usr/share/man/* "$root"/var/log/*.log "$root"/var/log/apt
