# One cluster at a time: names of namespaces and cgroups are the machine's. Whoever has the lock may erase what bears
# them. Its holder is this process while it works, and node 1's first process for as long as the cluster lives.

lock=/run/lock/imcluster-cluster.lock
previous= # what the last holder wrote

take_lock() { # KIND: left (up, and down ends it), tied (its process ends it), down
    mkdir -p "$(dirname "$lock")" && exec 9<>"$lock" || return
    flock --timeout "${IMCLUSTER_CLUSTER_WAIT:-0}" 9 || give_up "a cluster is there already: $(holder)"
    previous=$(holder)
    sign_lock "$1" -
}

# One line of who has it: KIND PID FOLDER since TIME by COMMAND
holder() { cat "$lock" 2>/dev/null; }

sign_lock() { # KIND FOLDER
    local by
    by=$(tr '\0' ' ' <"/proc/$PPID/cmdline")
    echo "$1 $$ $2 since $(date '+%F %T') by ${by:0:100}" >"$lock"
}

free_lock() {
    : >"$lock"
    exec 9>&-
}

# Works with the folder of the cluster that is up, if there is one.
adopt_running() {
    local kind pid folder rest
    read -r kind pid folder rest < <(holder)
    [ -d "${folder:-}" ] && adopt "$folder"
}
