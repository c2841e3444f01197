# shellcheck shell=bash
# How scripts/vm starts qemu: its arguments, and the disks with copied directories. Sourced after vm-image.sh, whose
# cache it shares; uses the caller's `say` and `fail`.
# shellcheck disable=SC2154 # vm_cache is vm-image.sh's

# One directory (or tar archive) as a file system with room to write.
make_copy_image() { # SRC IMAGE
    local src=$1 mib
    if [[ -f $src ]]; then
        mkdir "$2.d"
        tar -xf "$src" -C "$2.d" || fail "--copy $src: neither a directory nor a tar archive"
        src=$2.d
    fi
    [[ -d $src ]] || fail "--copy $src: no such directory or archive"
    mib=$(du -s --apparent-size --block-size=1M "$src" | cut -f1)
    mke2fs -q -t ext4 -O ^has_journal -i 8192 -d "$src" "$2" "$((mib * 5 / 4 + 512))M" >/dev/null || fail "--copy $src: mke2fs failed"
    [[ $src != "$2.d" ]] || rm -r "$2.d"
}

# Sets qemu_command: everything but the further disks and channels.
qemu_args() { # IMAGE ACCEL MEMORY CPUS CMDLINE
    local accel=$2 cmdline="console=ttyS0 rw panic=-1 mitigations=off $5"
    [[ $accel != tcg ]] || accel=tcg,thread=multi,tb-size=512
    [[ $5 != fcvm.shell* ]] || cmdline+=" quiet systemd.show_status=no"
    # shellcheck disable=SC2034,SC2054 # read by scripts/vm; the commas are qemu's
    qemu_command=(qemu-system-x86_64 -M q35 -accel "$accel" -cpu max -smp "$4" -m "$3"
        -nodefaults -no-user-config -display none -no-reboot -nic none -device virtio-rng-pci
        -kernel "$1/vmlinuz" -initrd "$1/initrd" -append "$cmdline"
        -drive "if=none,id=root,file=$1/root.ext4,format=raw,snapshot=on,cache=unsafe"
        -device virtio-blk-pci,drive=root,serial=root)
}

# `kvm` where it really boots (some hosts have a /dev/kvm that hangs), else `tcg`. Asked once per boot of the host.
usable_accel() { # IMAGE
    local verdict answer
    [[ -w /dev/kvm ]] || { echo tcg; return; }
    verdict=$vm_cache/accel-$(</proc/sys/kernel/random/boot_id)
    if [[ ! -s $verdict ]]; then
        rm -f "$vm_cache"/accel-*
        say "trying /dev/kvm"
        qemu_args "$1" kvm 512 1 fcvm.probe
        # The initrd answers a probe with one line and powers off.
        answer=$(timeout 30 "${qemu_command[@]}" -monitor none -serial stdio </dev/null 2>/dev/null | grep -c '^fcvm-probe-ok' || true)
        if ((answer)); then echo kvm; else say "/dev/kvm does not boot a machine"; echo tcg; fi >"$verdict"
    fi
    cat "$verdict"
}
