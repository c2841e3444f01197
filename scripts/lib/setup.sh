# shellcheck shell=bash
# What the scripts need on a Debian machine, in one list, and its installation. Sourced; uses the caller's `say` and `fail`.
# shellcheck disable=SC2034 # the lists are the caller's to choose from

# A program or file to look for, and the package that has it.
setup_build=(cc:gcc ld:binutils git:git curl:curl xz:xz-utils)
setup_package=(dpkg-deb:dpkg dpkg-shlibdeps:dpkg-dev readelf:binutils)
setup_sites=(nft:nftables ip:iproute2 busybox:busybox-static curl:curl jq:jq python3:python3
    apache2:apache2 /usr/lib/apache2/modules/mod_php.load:libapache2-mod-php nginx:nginx-light)
setup_test=(shellcheck:shellcheck ab:apache2-utils socat:socat ping:iputils-ping ps:procps fusermount3:fuse3 bindfs:bindfs setpriv:util-linux)
setup_bench=(php-fpm8.2:php8.2-fpm runc:runc crun:crun bwrap:bubblewrap)
setup_vm=(qemu-system-x86_64:qemu-system-x86 mmdebstrap:mmdebstrap mke2fs:e2fsprogs flock:util-linux)

setup_present() { # PROGRAM-OR-FILE
    case $1 in
        */mod_php.load) compgen -G '/usr/lib/apache2/modules/libphp*.so' >/dev/null ;;
        /*) [[ -e $1 ]] ;;
        *) PATH=$PATH:/usr/sbin:/sbin command -v "$1" >/dev/null ;;
    esac
}

# Installs the packages of those that are missing; daemons among them are not started.
setup_install() { # PROGRAM:PACKAGE…
    local item policy=/usr/sbin/policy-rc.d ours='' log missing=()
    for item in "$@"; do
        setup_present "${item%%:*}" || missing+=("${item#*:}")
    done
    ((${#missing[@]})) || return 0
    command -v apt-get >/dev/null || fail "missing, and this is no Debian: ${missing[*]}"
    say "installing ${missing[*]}"
    if [[ ! -e $policy ]]; then
        printf '#!/bin/sh\nexit 101\n' >"$policy"
        chmod 755 "$policy"
        ours=1
    fi
    log=$(mktemp)
    if ! { apt-get -q update && DEBIAN_FRONTEND=noninteractive apt-get -q -y --no-install-recommends install "${missing[@]}"; } \
        >"$log" 2>&1 </dev/null; then
        [[ -z $ours ]] || rm -f "$policy"
        tail -n 30 "$log" >&2
        rm -f "$log"
        fail "apt-get could not install: ${missing[*]} (its last lines are above)"
    fi
    [[ -z $ours ]] || rm -f "$policy"
    rm -f "$log"
}

# cargo and rustup of this user or of the one behind sudo, and what the build needs of them.
setup_rust() {
    local home component target
    target=$(uname -m)-unknown-linux-musl
    for home in "${CARGO_HOME:-$HOME/.cargo}" "$(getent passwd root | cut -d: -f6)/.cargo" "$(getent passwd "${SUDO_USER:-root}" | cut -d: -f6)/.cargo"; do
        command -v cargo >/dev/null && break
        [[ -x $home/bin/cargo ]] || continue
        export PATH=$home/bin:$PATH
        # Their tool chain, our own registry: nothing of root's is left in another's home.
        [[ ! -d ${home%/.cargo}/.rustup ]] || export RUSTUP_HOME=${RUSTUP_HOME:-${home%/.cargo}/.rustup}
    done
    command -v cargo >/dev/null || fail "no cargo: install Rust 1.95 or later with rustup (https://rustup.rs)"
    command -v rustup >/dev/null || return 0
    rustup target list --installed | grep -qx "$target" || rustup target add "$target" >&2
    for component in rustfmt clippy; do
        cargo "${component/rustfmt/fmt}" --version >/dev/null 2>&1 || rustup component add "$component" >&2
    done
    export PATH=${CARGO_HOME:-$HOME/.cargo}/bin:$PATH
}

# A cargo subcommand from the registry, unless it is there.
setup_cargo_tool() { # NAME
    command -v "$1" >/dev/null && return
    say "installing $1 (some minutes, once)"
    cargo install --quiet --locked "$1" >&2
}
