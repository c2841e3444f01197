# shellcheck shell=bash
# The virtual machine's root image for scripts/vm: made once and kept in a cache. Sourced; uses the caller's `say` and
# `fail`. What is in this file is part of the cache's key: whatever does not change the image belongs elsewhere.

vm_lib=$(dirname "${BASH_SOURCE[0]}")
vm_cache=${FASTCONTAINER_CACHE:-/var/cache/fastcontainer/vm}
vm_packages=(systemd systemd-sysv udev dbus kmod init-system-helpers apache2 libapache2-mod-php nginx-light nftables xfsprogs
    iproute2 iputils-ping curl jq python3 procps busybox-static fuse3 bindfs strace util-linux e2fsprogs socat apache2-utils
    man-db)
vm_kernel=linux-image-cloud-amd64

need_tools() {
    local tool missing=()
    for tool in qemu-system-x86_64:qemu-system-x86 mmdebstrap:mmdebstrap mke2fs:e2fsprogs dpkg-deb:dpkg flock:util-linux; do
        command -v "${tool%%:*}" >/dev/null || missing+=("${tool#*:}")
    done
    ((${#missing[@]} == 0)) || fail "missing programs: apt-get install ${missing[*]}"
}

# The host's own package sources for its own release: what runs here also runs in the machine, and no archive is named.
apt_sources() {
    local suite=$1 file
    for file in /etc/apt/sources.list /etc/apt/sources.list.d/*.list /etc/apt/sources.list.d/*.sources; do
        # Only files about this release: third-party archives are of no use in the machine.
        [[ -f $file ]] && grep -qE "^[^#]*\b$suite\b" "$file" && printf '%s\n' "$file"
    done
    return 0
}

cached_image() {
    local suite sources key dir
    suite=$(. /etc/os-release && printf '%s' "${VERSION_CODENAME-}")
    mapfile -t sources < <(apt_sources "$suite")
    ((${#sources[@]})) || fail "no package source for '$suite' under /etc/apt: the machine is made from the host's own release"
    key=$({ printf '%s\n' "$suite" "${vm_packages[@]}" "$vm_kernel"
        cat "${sources[@]}" "$vm_lib/vm-image.sh" "$vm_lib"/vm-guest/*; } | sha256sum | cut -c1-16)
    dir=$vm_cache/$suite-$key
    mkdir -p "$vm_cache"
    # One builder at a time; the others wait here and then find the image made.
    (
        flock 9
        [[ -f $dir/root.ext4 ]] || build_image "$suite" "$dir" "${sources[@]}"
        touch "$dir"
        # Images that nobody used for two weeks.
        find "$vm_cache" -mindepth 1 -maxdepth 1 -type d -mtime +14 -exec rm -rf {} +
    ) 9>"$vm_cache/lock" >&2 || fail "the root image could not be made"
    printf '%s\n' "$dir"
}

# How apt reaches its archives here (proxies and the like); the rest of the host's configuration is its own business.
apt_transport() { apt-config dump | grep -E '^Acquire::(http|https|ftp|Retries|ForceIPv)' || true; }

build_image() { # SUITE DIR SOURCES…
    set -e # for the caller's `||` has switched it off outside
    local suite=$1 dir=$2 new root log options=() start=$SECONDS
    shift 2
    new=$(mktemp -d "$vm_cache/.new.XXXXXX")
    # shellcheck disable=SC2064
    trap "rm -rf '$new'" EXIT
    root=$new/root log=$new/log
    apt_transport >"$new/apt.conf"
    [[ ! -s $new/apt.conf ]] || options+=(--aptopt="$new/apt.conf")

    say "making the root image, once: $suite with ${#vm_packages[@]} packages (about a minute)"
    unshare --mount --propagation private mmdebstrap --mode=root --variant=apt "${options[@]}" \
        --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
        --dpkgopt='path-exclude=/usr/share/doc/*' \
        --include="$(IFS=,; printf '%s' "${vm_packages[*]}")" "$suite" "$root" "$@" >"$log" 2>&1 </dev/null ||
        { tail -n 30 "$log" >&2; fail "mmdebstrap failed (its last lines are above)"; }
    say "  packages installed after $((SECONDS - start)) s; fetching the kernel"
    fetch_kernel "$new" >"$log" 2>&1 || { tail -n 30 "$log" >&2; fail "the kernel could not be fetched (see above)"; }
    furnish_root "$root"
    make_initrd "$root" "$new" >"$log" 2>&1 || { tail -n 30 "$log" >&2; fail "the initrd could not be made (see above)"; }
    say "  writing the file system"
    mke2fs -q -t ext4 -O ^has_journal -L root -d "$root" "$new/root.ext4" 6G >/dev/null
    rm -rf "$root" "$log" "$new/apt.conf"
    chmod 700 "$new"
    rm -rf "$dir"
    mv "$new" "$dir"
    say "root image ready after $((SECONDS - start)) s: $dir"
}

# The kernel package is unpacked, not installed: installing it would pull in and run an initramfs builder.
fetch_kernel() { # NEW
    local package version
    package=$(apt-cache depends "$vm_kernel" | awk '$1 == "Depends:" && $2 ~ /^linux-image-/ { print $2; exit }')
    if [[ -z $package ]] || ! (cd "$1" && apt-get -q -o APT::Sandbox::User=root download "$package"); then
        apt-get -q update
        package=$(apt-cache depends "$vm_kernel" | awk '$1 == "Depends:" && $2 ~ /^linux-image-/ { print $2; exit }')
        (cd "$1" && apt-get -q -o APT::Sandbox::User=root download "$package")
    fi
    version=${package#linux-image-}
    dpkg-deb --fsys-tarfile "$1/$package"_*.deb | tar -x --keep-directory-symlink -C "$1/root"
    rm "$1/$package"_*.deb
    mv "$1/root/boot/vmlinuz-$version" "$1/vmlinuz"
    chroot "$1/root" depmod "$version"
    printf '%s\n' "$version" >"$1/kernel"
}

# Just enough to reach the root disk: a shell and the modules between PCI and the disk (ext4 is in the kernel).
make_initrd() { # ROOT NEW
    local tree=$2/initrd.d version module
    version=$(<"$2/kernel")
    mkdir -p "$tree"/{bin,dev,proc,newroot}
    cp "$1/bin/busybox" "$tree/bin/busybox"
    cp "$vm_lib/vm-guest/initrd-init" "$tree/init"
    chmod 755 "$tree/init"
    for module in virtio_pci virtio_blk; do
        chroot "$1" modprobe --set-version "$version" --show-depends "$module"
    done | awk '$1 == "insmod" && !seen[$2]++ { print $2 }' >"$2/modules"
    while read -r module; do
        cp "$1$module" "$tree/"
        basename "$module" >>"$tree/modules"
    done <"$2/modules"
    mv "$tree" "$1/initrd.d"
    chroot "$1" sh -c 'cd /initrd.d && find . | busybox cpio -o -H newc' >"$2/initrd"
    rm -r "$1/initrd.d" "$2/modules"
}

# What makes a Debian root our test machine.
furnish_root() { # ROOT
    local root=$1 guest=$vm_lib/vm-guest
    # The exclusions, and how the host reaches its archives, were for the making only.
    rm -f "$root"/etc/dpkg/dpkg.cfg.d/99mmdebstrap "$root"/etc/apt/apt.conf.d/99mmdebstrap
    rm -rf "$root"/var/lib/apt/lists/* "$root"/var/cache/apt/*.bin
    echo fastcontainer-vm >"$root/etc/hostname"
    printf '127.0.0.1 localhost fastcontainer-vm\n::1 localhost\n' >"$root/etc/hosts"
    : >"$root/etc/resolv.conf"
    chroot "$root" systemd-machine-id-setup >/dev/null 2>&1
    install -m 755 "$guest/fcvm-copies" "$guest/fcvm-run" "$guest/fcvm-shell" "$root/usr/local/sbin/"
    install -m 644 "$guest"/*.service "$root/etc/systemd/system/"
    local user
    for user in acme:1001 bolt:1002; do
        chroot "$root" groupadd --gid "${user#*:}" "${user%:*}"
        chroot "$root" useradd --create-home --uid "${user#*:}" --gid "${user#*:}" --shell /bin/bash "${user%:*}"
    done
    chroot "$root" systemctl --quiet enable fcvm-run.service fcvm-shell.service
    # Nobody searches the manual here.
    rm -f "$root"/var/lib/man-db/auto-update
    # Web servers are for the tests to start; the rest only costs time.
    chroot "$root" systemctl --quiet disable apache2.service nginx.service
    chroot "$root" systemctl --quiet mask serial-getty@.service getty@.service apt-daily.timer apt-daily-upgrade.timer \
        e2scrub_all.timer e2scrub_reap.service fstrim.timer dpkg-db-backup.timer phpsessionclean.timer logrotate.timer \
        systemd-update-utmp.service systemd-random-seed.service apache-htcacheclean.service
}
