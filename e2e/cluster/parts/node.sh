# A node: processes in a pid and a mount namespace of their own, whose first process is `pause`. When that ends, the
# kernel ends everything that the node ran, pods too, and all that it mounted goes with it.

make_nodes() { first_process 1 "$1" && first_process 2 "$1" && say "nodes' namespaces"; } # KIND

# Node 1's keeps the lock, and is tied to us when the cluster shall not outlive this process. Node 2's pid namespace is
# inside node 1's, so that it never outlives that.
first_process() { # N KIND
    local name=net$1 within=() pid
    if [ "$1" = 2 ]; then
        within=(nsenter --target "$(cat "$state/run/node1.pid")" --pid --)
    elif [ "$2" = tied ]; then
        within=(setpriv --pdeathsig KILL)
    fi
    setsid "${within[@]}" nsenter --net="/run/netns/${!name}" \
        unshare --mount --pid --fork --kill-child=KILL --mount-proc "$here/parts/init" "$bin/pause" \
        </dev/null >"$state/log/init-node$1.log" 2>&1 3>&- &
    echo $! >"$state/run/node$1.outside"
    disown
    for _ in {1..200}; do
        pid=$(youngest "$(cat "$state/run/node$1.outside")")
        if [ "$(cat "/proc/$pid/comm" 2>/dev/null)" = pause ]; then
            echo "$pid" >"$state/run/node$1.pid"
            return
        fi
        sleep 0.05
    done
    say "node $1 has no first process: $(cat "$state/log/init-node$1.log")"
    return 1
}

# The last of a line of only children.
youngest() { # PID
    local pid=$1 child
    while child=$(cat "/proc/$pid/task/$pid/children" 2>/dev/null) && [ -n "$child" ]; do pid=${child%% *}; done
    echo "$pid"
}

# Runs a program of a node for as long as the node lives. Its own output is in log/NAME.log.
daemon() { # N NAME PROGRAM ARGUMENTS…
    local n=$1 name=$2 program=$3 pid log="$state/log/$2.log"
    pid=$(cat "$state/run/node$n.pid") || return
    shift 3
    [ ! -x "$bin/$program" ] || program="$bin/$program"
    setsid nsenter -t "$pid" -m -p -n -- "$program" "$@" </dev/null >>"$log" 2>&1 3>&- 9>&- &
    echo $! >"$state/run/node$n.$name"
    disown
}

both_nodes() { # FUNCTION
    "$1" 1 &
    local first=$! good=0
    "$1" 2 || good=1
    wait "$first" || good=1
    return "$good"
}

up_node() { # N
    local n=$1 dir="$state/node$1" image
    mkdir -p "$dir"/{cni,kubelet,logs,plugins,containerd}
    : >"$dir/resolv.conf" # there is no name server but the cluster's
    make_cgroup "$n" && containerd_config "$n" && cni_config "$n" && kubelet_config "$n" && proxy_config "$n" || return
    daemon "$n" "containerd-node$n" containerd --config "$dir/containerd.toml"
    until_done 30 "node $n: containerd" ctr_on "$n" version || return
    for image in "$state"/images/*.tar; do ctr_on "$n" images import "$image" >/dev/null || return; done
    daemon "$n" "kubelet-node$n" kubelet --config "$dir/kubelet.yaml" --kubeconfig "$pki/node$n.kubeconfig" \
        --hostname-override "node$n" --node-ip "198.18.0.$n" --root-dir "$dir/kubelet" --cert-dir "$dir/kubelet/pki" \
        --node-labels "topology.kubernetes.io/region=region-1,topology.kubernetes.io/zone=zone-$n"
    daemon "$n" "proxy-node$n" kube-proxy --config "$dir/proxy.yaml"
    until_done 90 "node $n is Ready" k wait --for=condition=Ready "node/node$n" --timeout=1s
}

ctr_on() { # N ARGUMENTS…
    local n=$1
    shift
    timeout 300 nsenter -t "$(cat "$state/run/node$n.pid")" -m -p -n -- \
        ctr --address "$state/node$n/containerd.sock" --namespace k8s.io "$@"
}

# Imports image archives on both nodes and says what they are called.
load() { # FILE…
    local file
    for file in "$@"; do
        [ -f "$file" ] || { echo "$file is not there" >&2 && return 1; }
        ctr_on 1 images import "$file" | awk '{ print $2 }' && ctr_on 2 images import "$file" >/dev/null || return
    done
}

load_given() {
    local given="${IMCLUSTER_IMAGES:-}"
    [ -n "$given" ] || return 0
    compgen -G "$given/*.tar" >/dev/null || { echo "IMCLUSTER_IMAGES: no *.tar in $given" >&2 && return 1; }
    load "$given"/*.tar
}

# What can befall one. Only node 2: node 1 is the control plane as well.
node() { # N COMMAND
    [ "${1:-}" = 2 ] || give_up "node 1 carries the control plane; node 2 is the one that things happen to"
    case "${2:-}" in
    cut) ip -n $net1 link set node2 down ;;
    mend) ip -n $net1 link set node2 up ;;
    down) end_node 2 ;;
    up) first_process 2 left && up_node 2 ;;
    *) give_up "cluster node 2 up|down|cut|mend" ;;
    esac
}

# Pods' cgroups are below imk8s/nodeN of every controller (version 1) or of the one tree (version 2).
make_cgroup() { # N
    local root=/sys/fs/cgroup controller file
    if [ -e $root/cgroup.controllers ]; then
        mkdir -p "$root/imk8s/node$1"
        for controller in $(cat $root/cgroup.controllers); do
            # What cannot be handed on, the kubelet names when it needs it.
            for file in $root $root/imk8s "$root/imk8s/node$1"; do
                echo "+$controller" >"$file/cgroup.subtree_control" 2>/dev/null || true
            done
        done
        return
    fi
    for controller in "$root"/*/; do
        [ ! -e "${controller}cgroup.controllers" ] || continue # the part of version 2 in a mixed machine
        mkdir -p "${controller}imk8s/node$1" || return
    done
    # A new cpuset is empty, and nothing could run in it.
    for file in cpuset.cpus cpuset.mems; do
        cat $root/cpuset/$file >$root/cpuset/imk8s/$file && cat $root/cpuset/$file >"$root/cpuset/imk8s/node$1/$file" || return
    done
}

containerd_config() { # N
    local dir="$state/node$1"
    cat >"$dir/containerd.toml" <<TOML
version = 2
root = "$dir/containerd/root"
state = "$dir/containerd/state"
oom_score = 0
disabled_plugins = [
  "io.containerd.internal.v1.opt", "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs", "io.containerd.tracing.processor.v1.otlp",
]

[grpc]
address = "$dir/containerd.sock"

[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "imcluster.test/pause:1"
netns_mounts_under_state_dir = true
disable_apparmor = true
restrict_oom_score_adj = true # a root without CAP_SYS_RESOURCE cannot lower it
stream_server_address = "127.0.0.1"

[plugins."io.containerd.grpc.v1.cri".containerd]
snapshotter = "overlayfs"
default_runtime_name = "runc"

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
options = { SystemdCgroup = false }

[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "/usr/lib/cni"
conf_dir = "$dir/cni"
TOML
}

cni_config() { # N
    cat >"$state/node$1/cni/10-bridge.conflist" <<JSON
{
  "cniVersion": "1.0.0",
  "name": "imcluster",
  "plugins": [
    {
      "type": "bridge", "bridge": "cni0", "isGateway": true, "ipMasq": false, "hairpinMode": true,
      "ipam": {
        "type": "host-local", "dataDir": "/run/cni-addresses",
        "ranges": [[{"subnet": "10.244.$1.0/24"}]], "routes": [{"dst": "0.0.0.0/0"}]
      }
    },
    {"type": "portmap", "capabilities": {"portMappings": true}}
  ]
}
JSON
}

kubelet_config() { # N
    local dir="$state/node$1"
    cat >"$dir/kubelet.yaml" <<YAML
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
authentication: {anonymous: {enabled: false}, webhook: {enabled: true}, x509: {clientCAFile: $pki/ca.crt}}
authorization: {mode: Webhook}
address: 198.18.0.$1
healthzBindAddress: 127.0.0.1
tlsCertFile: $pki/node$1-serving.crt
tlsPrivateKeyFile: $pki/node$1-serving.key
cgroupDriver: cgroupfs
cgroupRoot: /imk8s/node$1
failCgroupV1: false
failSwapOn: false
clusterDomain: cluster.local
clusterDNS: [$dns]
resolvConf: $dir/resolv.conf
containerRuntimeEndpoint: unix://$dir/containerd.sock
volumePluginDir: $dir/plugins
podLogsDir: $dir/logs
maxPods: 200
serializeImagePulls: false
# Images come from archives: one that was removed would not come back.
imageMaximumGCAge: 0s
imageGCHighThresholdPercent: 100
evictionHard: {memory.available: 200Mi, nodefs.available: 1%, imagefs.available: 1%, nodefs.inodesFree: 1%}
nodeStatusUpdateFrequency: 2s
nodeLeaseDurationSeconds: 8
kubeAPIQPS: 100
kubeAPIBurst: 200
YAML
}

proxy_config() { # N
    cat >"$state/node$1/proxy.yaml" <<YAML
apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
mode: nftables
clientConnection: {kubeconfig: $pki/proxy.kubeconfig}
hostnameOverride: node$1
clusterCIDR: $pods
detectLocalMode: ClusterCIDR
healthzBindAddress: 127.0.0.1:10256
metricsBindAddress: 127.0.0.1:10249
# The machine's own limits stay as they are.
conntrack: {maxPerCore: 0, min: 0, tcpEstablishedTimeout: 0s, tcpCloseWaitTimeout: 0s}
YAML
}
