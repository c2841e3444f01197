# shellcheck shell=bash
# What the systemd tests share: the runner, waiting, and questions to the machine. Sourced; uses the caller's directory
# $work.
# shellcheck disable=SC2034,SC2154 # set or read by the caller

passed=0 failed=0
scale=${FASTCONTAINER_TIME_SCALE:-1}
unit_cgroup=/sys/fs/cgroup/fastcontainer-sites.service

# Runs the function NAME in a shell of its own; its output is shown if it fails.
run_test() { # NAME
    local began=$EPOCHREALTIME rc=0 took
    # `set -e` would not hold inside an `if` or `||`.
    set +e
    (set -e; "$1") >"$work/output" 2>&1 </dev/null
    rc=$?
    set -e
    took=$(awk -v a="$began" -v b="$EPOCHREALTIME" 'BEGIN { printf "%8.3f", b - a }')
    if ((rc == 0)); then
        passed=$((passed + 1))
        printf '        PASS [%ss] systemd %s\n' "$took" "$1"
    else
        failed=$((failed + 1))
        printf '        FAIL [%ss] systemd %s (exit code %d)\n' "$took" "$1" "$rc"
        sed 's/^/    /' "$work/output"
        echo '    --- the journal'
        journalctl --no-pager -q -n 40 -u 'fastcontainer*' | sed 's/^/    /'
    fi
}

fail() { printf '%s\n' "$*" >&2; exit 1; }

same() { # WHAT GOT WANTED
    [[ $2 == "$3" ]] || fail "$1: '$2' instead of '$3'"
}

# Waits until a command succeeds: SECONDS on a real machine, longer on a slow one.
eventually() { # SECONDS COMMAND…
    local end=$((SECONDS + $1 * scale))
    shift
    until "$@"; do
        ((SECONDS < end)) || fail "not in time: $*"
        sleep 0.2
    done
}

absent() { [[ ! -e $1 ]]; }
answers_api() { fastctl --json status >/dev/null 2>&1; }
# Whether systemd has started another agent than the one of that pid, and it is ready.
came_back() { # PID
    local now
    now=$(main_pid)
    [[ $now != 0 && $now != "$1" ]] && systemctl -q is-active fastcontainerd.service
}
main_pid() { systemctl show --value -p MainPID fastcontainerd.service; }

# The container's process: pid and start time, so that a reused number is not taken for it.
identity() { # VHOST
    local pid
    pid=$(fastctl --json status "$1" | jq -er .pid)
    printf '%s %s\n' "$pid" "$(awk '{ sub(/.*\) /, ""); print $20 }' "/proc/$pid/stat")"
}

fetch() { # UPSTREAM
    curl -sS --fail --max-time "$((5 * scale))" "http://$1/index.html"
}

# That the container of before still runs and answers, with its agent and past it.
survived() { # VHOST
    local now
    now=$(identity "$1")
    same "pid and start time of $1" "$now" "$(<"$work/identity")"
    same "the page of $1" "$(fetch "$(<"$work/upstream")")" "<h1>$1</h1>"
    same "the upstream of $1" "$(fastctl --json dispatch "$1" | jq -r .upstream)" "$(<"$work/upstream")"
}
