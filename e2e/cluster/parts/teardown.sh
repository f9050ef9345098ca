# The end: nodes are killed by their first processes, then what is not a process is removed. It says what is left.

# What the kubelet sets for the whole machine. It is put back to what it was.
sysctls="vm.overcommit_memory vm.panic_on_oom kernel.panic kernel.panic_on_oops kernel.keys.root_maxkeys kernel.keys.root_maxbytes"

save_sysctls() {
    local name
    for name in $sysctls; do sysctl -e "$name"; done >"$state/sysctls"
}

teardown() {
    [ -n "$state" ] || { free_lock && return; }
    end_nodes
    remove_networks
    remove_cgroups
    [ ! -e "$state/sysctls" ] || sysctl -q -e -p "$state/sysctls" || echo "not put back: $(cat "$state/sysctls")" >&2
    rm -rf "$state"
    local rest
    rest=$(left_over)
    free_lock
    [ -z "$rest" ] || { echo "the cluster has left this behind: $rest" >&2 && return 1; }
    say "nothing is left"
}

# A run that was killed could not tidy up. Whoever has the lock now does it for it.
erase_leftovers() {
    local kind pid folder rest
    read -r kind pid folder rest <<<"$previous"
    if [ -n "${folder:-}" ] && [ -d "$folder" ]; then
        say "tidying up after $folder"
        adopt "$folder"
        end_nodes
        [ ! -e "$state/sysctls" ] || sysctl -q -e -p "$state/sysctls"
        rm -rf "$state"
        state=
    fi
    remove_networks
    remove_cgroups
}

end_nodes() {
    end_node 2
    end_node 1
}

# Kills a node's first process and waits until everything that the node ran is gone.
end_node() { # N
    local name=net$1 file pid
    file="$state/run/node$1.pid"
    if [ -e "$file" ]; then
        pid=$(cat "$file")
        [ "$(cat "/proc/$pid/comm" 2>/dev/null)" = pause ] && [ "$(ip netns identify "$pid")" = "${!name}" ] && kill -KILL "$pid"
        rm -f "$file"
    fi
    for file in "$state/run/node$1".*; do
        [ -e "$file" ] || continue
        gone "$(cat "$file")" || say "process $(cat "$file") of node $1 does not end"
        rm -f "$file"
    done
}

gone() { # PID
    for _ in {1..200}; do
        # A child of ours that has ended stays in /proc until we have looked.
        [ -e "/proc/$1" ] && [ "$(awk '{ sub(/.*\) /, ""); print $1 }' "/proc/$1/stat" 2>/dev/null)" != Z ] || return 0
        sleep 0.05
    done
    return 1
}

remove_networks() {
    local name
    for name in $net3 $net2 $net1; do
        [ ! -e "/run/netns/$name" ] || ip netns del "$name"
    done
    # The folder of all names is a mount, too, which ip makes when it is needed.
    [ -n "$(ls -A /run/netns 2>/dev/null)" ] || { umount /run/netns && rmdir /run/netns; } 2>/dev/null || true
}

# A cgroup stays busy for a moment after its last process.
remove_cgroups() {
    for _ in {1..50}; do
        cgroups | while read -r tree; do find "$tree" -depth -type d -exec rmdir {} + 2>/dev/null; done
        [ -n "$(cgroups)" ] || return 0
        sleep 0.1
    done
}

cgroups() { compgen -G '/sys/fs/cgroup/imk8s' || compgen -G '/sys/fs/cgroup/*/imk8s'; }

# Whatever of a cluster is still to be seen.
left_over() {
    local name
    for name in $net1 $net2 $net3; do [ ! -e "/run/netns/$name" ] || echo "network namespace $name"; done
    cgroups
    grep -F "$state" /proc/self/mountinfo
    [ ! -e "$state" ] || echo "$state"
    grep -lsF "$state/" /proc/[0-9]*/cmdline
    true
}
