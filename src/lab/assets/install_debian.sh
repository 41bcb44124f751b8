#!/bin/busybox sh
# Installs Debian on /dev/vda from the archive on /dev/vdb, as root of a guest that has nothing but busybox:
# debootstrap's two stages, without its own program. What it prints is progress; its status says how it went.

set -e
label=$1
work=/parcel
target=/newroot

fail() {
	echo "$1" >&2
	exit 1
}

# By way of env's path: of a bare name, busybox would run its own applet.
chroot_run() {
	DEBIAN_FRONTEND=noninteractive DEBCONF_NONINTERACTIVE_SEEN=true LC_ALL=C.UTF-8 \
		PATH=/usr/sbin:/usr/bin:/sbin:/bin chroot $target /usr/bin/env "$@"
}

echo "making the file system"
# The real mke2fs, with its libraries, from the packages themselves.
mkdir -p /tools
for name in libc6 e2fsprogs libext2fs2 libcom-err2 libblkid1 libuuid1 logsave; do
	for deb in $work/debs/${name}_*.deb; do [ -e "$deb" ] && dpkg-deb -x "$deb" /tools; done
done
libraries=/tools/lib/x86_64-linux-gnu:/tools/usr/lib/x86_64-linux-gnu
cp /tools/etc/mke2fs.conf /etc/mke2fs.conf
/tools/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2 --library-path $libraries /tools/sbin/mke2fs -q -t ext4 -L "$label" /dev/vda ||
	fail "mke2fs failed"
rm -rf /tools
mkdir -p $target
mount -t ext4 -o noatime,nobarrier /dev/vda $target || mount -t ext4 /dev/vda $target

echo "unpacking the base"
# The merged /usr of Debian 12: packages still name /bin and /lib.
for each in bin sbin lib lib64; do
	mkdir -p $target/usr/$each
	ln -s usr/$each $target/$each
done
# What dpkg and the packages' scripts run on; dpkg unpacks the others.
cd $work/debs
while read -r deb; do
	dpkg-deb -x "$deb" $target || fail "$deb cannot be unpacked"
done <$work/essential
cd $work
mkdir -p $target/debs $target/var/lib/dpkg/info $target/var/lib/dpkg/updates $target/proc $target/sys $target/dev $target/run
: >$target/var/lib/dpkg/status
: >$target/var/lib/dpkg/available
mount -o bind $work/debs $target/debs
mount -t proc proc $target/proc
mount -t sysfs sysfs $target/sys
mount -o rbind /dev $target/dev
mount -t tmpfs tmpfs $target/run
# Services have no place to start in yet.
printf '#!/bin/sh\nexit 101\n' >$target/usr/sbin/policy-rc.d
chmod 755 $target/usr/sbin/policy-rc.d
[ -e $target/usr/bin/awk ] || ln -s mawk $target/usr/bin/awk

echo "installing the base"
chroot_run ldconfig || true
# dpkg waits for the disk after each file; here nothing is lost but time when it does not.
options="--force-depends --force-unsafe-io --force-confdef --force-configure-any --force-overwrite"
for name in base-passwd base-files dpkg libc6 perl-base mawk debconf; do
	for deb in debs/${name}_*.deb; do
		[ -e "$deb" ] || continue
		chroot_run sh -c "dpkg $options --install /$deb >/dev/null 2>/tmp/dpkg.log" ||
			{ cat $target/tmp/dpkg.log >&2; fail "$deb cannot be installed"; }
	done
done
echo "unpacking packages"
chroot_run sh -c "dpkg $options --unpack /debs/*.deb >/dev/null 2>/tmp/dpkg.log" ||
	{ tail -20 $target/tmp/dpkg.log >&2; fail "the packages cannot be unpacked"; }
echo "configuring packages"
chroot_run sh -c "dpkg $options --configure --pending >/tmp/dpkg.out 2>/tmp/dpkg.log" ||
	{ tail -20 $target/tmp/dpkg.log >&2; fail "the packages cannot be configured"; }

echo "setting up"
mkdir -p $target/usr/lib/modules
cp -a $work/modules/* $target/usr/lib/modules/
for release in $target/usr/lib/modules/*; do chroot_run depmod "${release##*/}" || true; done
cp $work/sources.list $target/etc/apt/sources.list
echo nemu >$target/etc/hostname
printf '127.0.0.1 localhost nemu\n::1 localhost\n' >$target/etc/hosts
printf '/dev/vda / ext4 defaults,noatime 0 1\n' >$target/etc/fstab
# Root has no password, and the consoles ask for none.
chroot_run passwd -d root >/dev/null
for terminal in serial-getty@ttyS0 serial-getty@hvc0; do
	folder=$target/etc/systemd/system/$terminal.service.d
	mkdir -p "$folder"
	printf '[Service]\nExecStart=\nExecStart=-/sbin/agetty --autologin root --keep-baud 115200 - $TERM\n' \
		>"$folder/autologin.conf"
done
mkdir -p $target/etc/systemd/network
printf '[Match]\nName=en* eth*\n[Network]\nDHCP=yes\n[DHCPv4]\nUseDNS=yes\n' >$target/etc/systemd/network/80-dhcp.network
chroot_run systemctl enable systemd-networkd >/dev/null 2>&1 || true
# It watches hardware that a guest has only when asked for, and fails without.
chroot_run systemctl disable ndctl-monitor.service >/dev/null 2>&1 || true
: >$target/etc/default/locale
# A serial line has no size: the terminal behind it says where its last corner is.
cat >$target/etc/profile.d/terminal-size.sh <<'EOF'
case $(tty) in
/dev/ttyS* | /dev/hvc*)
	if [ -t 0 ] && [ -n "$BASH_VERSION" ]; then
		saved=$(stty -g)
		stty raw -echo
		printf '\0337\033[999;999H\033[6n\0338' >/dev/tty
		IFS='[;' read -t 1 -r -d R _ rows columns </dev/tty
		stty "$saved"
		[ "${rows:-0}" -gt 0 ] 2>/dev/null && [ "${columns:-0}" -gt 0 ] && stty rows "$rows" columns "$columns"
		unset saved rows columns
	fi
	;;
esac
EOF
# Nothing to wait for without a network.
chroot_run systemctl mask systemd-networkd-wait-online >/dev/null 2>&1 || true
printf 'nameserver 10.0.2.3\n' >$target/etc/resolv.conf
rm -f $target/usr/sbin/policy-rc.d $target/tmp/dpkg.*
: >$target/etc/machine-id

cd /
umount $target/debs
rmdir $target/debs
umount $target/run $target/sys $target/proc
umount -l $target/dev
sync
umount $target || fail "the file system cannot be unmounted"
echo "done"
