# Three network namespaces on one bridge, with no way out of them: there is no default route, and no link to the
# machine's own. The third one is a client's that knows the addresses of the nodes and nothing else.

make_networks() {
    local name
    mkdir -p /run/netns
    for name in $net1 $net2 $net3; do
        ip netns add "$name" && ip -n "$name" link set lo up || return
    done
    ip -n $net1 link add nodes type bridge && ip -n $net1 link set nodes up &&
        ip -n $net1 addr add $node1/24 dev nodes &&
        plug $net2 node2 $node2/24 && plug $net3 client $client/32 || return
    # A Service's address is rewritten on its way out, so there has to be some way for it.
    ip -n $net1 route add $services dev nodes && ip -n $net1 route add 10.244.2.0/24 via $node2 &&
        ip -n $net2 route add $services dev eth0 && ip -n $net2 route add 10.244.1.0/24 via $node1 &&
        ip -n $net3 route add $node1/32 dev eth0 && ip -n $net3 route add $node2/32 dev eth0 || return
    for name in $net1 $net2; do
        nsenter --net="/run/netns/$name" sh -c '
            echo 1 >/proc/sys/net/ipv4/ip_forward
            # between two pods of a node, too, a Service is rewritten
            [ ! -e /proc/sys/net/bridge ] || echo 1 >/proc/sys/net/bridge/bridge-nf-call-iptables' || return
    done
    say "networks $net1, $net2, $net3"
}

plug() { # NAMESPACE ITS-PORT-ON-THE-BRIDGE ADDRESS
    ip -n $net1 link add "$2" type veth peer name eth0 netns "$1" &&
        ip -n $net1 link set "$2" master nodes up &&
        ip -n "$1" addr add "$3" dev eth0 && ip -n "$1" link set eth0 up
}
