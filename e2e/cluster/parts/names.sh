# What everything is called, and the few words that all parts use.

net1=imk8s net2=imk8s-n2 net3=imk8s-client # the network namespaces: node 1 and the control plane, node 2, a client
node1=198.18.0.1 node2=198.18.0.2 client=198.18.0.100 # of the range that is for benchmarks of network gear: nobody's
services=10.96.0.0/16 pods=10.244.0.0/16 dns=10.96.0.10 # node N has the pods 10.244.N.0/24
artefacts="${IMCLUSTER_ARTEFACTS:-$here/../../artefacts}"
state= # this cluster's folder: keys, configuration, databases, containers, logs

began=${EPOCHREALTIME/./}
say() { printf '[%7.2f s] %s\n' "$(((${EPOCHREALTIME/./} - began) / 10000))e-2" "$*"; }

give_up() {
    echo "$*" >&2
    exit 1
}

# The folder of a run, made fresh for it.
make_state() { # KIND, for the lock
    local folder
    case "${TMPDIR:-/tmp}" in
    /run* | /var/lib* | /var/log*) give_up "TMPDIR is $TMPDIR, which a node has of its own: choose another" ;;
    esac
    folder=$(mktemp -d "${TMPDIR:-/tmp}/imcluster-cluster-XXXXXX") && adopt "$folder" && sign_lock "$1" "$folder" || return
    chmod 755 "$state" # a container's process, which is not root, has to get through it to its files
    mkdir -p "$state"/{pki,log,run,images,helm,node1,node2}
    ln -s "$built_kubernetes" "$bin" && ln -s "$built_traefik" "$traefik"
    "$here/pack" "$state/images/pause.tar" imcluster.test/pause:1 "$bin/pause=/pause" &&
        "$here/pack" "$state/images/coredns.tar" imcluster.test/coredns:1 "$bin/coredns=/coredns" &&
        "$here/pack" "$state/images/web.tar" imcluster.test/web:1 "$bin/web=/web"
}

# Works with a folder that a run has made.
adopt() { state=$1 pki=$1/pki bin=$1/bin traefik=$1/traefik; }

# Builds the programs unless they are there, and asks for the others.
programs() {
    local folders
    folders=$("$here/build") || return
    { read -r built_kubernetes && read -r built_traefik; } <<<"$folders"
    for needed in containerd ctr runc nft conntrack ip nsenter unshare setpriv openssl curl jq; do
        command -v "$needed" >/dev/null || give_up "$needed is not there: make test installs what a cluster needs"
    done
    [ -x /usr/lib/cni/bridge ] || give_up "/usr/lib/cni/bridge is not there: apt-get install containernetworking-plugins"
}

# until_done SECONDS WHAT COMMAND…: asks five times a second.
until_done() {
    local end=$((SECONDS + $1)) what=$2 last
    shift 2
    until last=$("$@" 2>&1); do
        [ $SECONDS -lt "$end" ] || { say "not within its time: $what; last: $last" && return 1; }
        sleep 0.2
    done
    say "$what"
}

net() { nsenter --net="/run/netns/$net1" "$@"; }
k() { net timeout 60 "$bin/kubectl" --kubeconfig "$state/kubeconfig" "$@"; }

# What a person's shell and the tests' commands need; never used outside the network namespace.
inside_env() {
    export KUBECONFIG="$state/kubeconfig" PATH="$bin:$PATH"
    export HELM_CACHE_HOME="$state/helm/cache" HELM_CONFIG_HOME="$state/helm/config" HELM_DATA_HOME="$state/helm/data"
}
