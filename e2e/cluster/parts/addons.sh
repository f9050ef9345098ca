# What a cluster needs beside Kubernetes: names (CoreDNS, on every node) and a way in (Traefik, a process of node 1).

start_dns() { k apply --filename "$here/dns.yaml" >/dev/null && say "DNS applied"; }

start_ingress() {
    k apply --server-side --filename "$traefik/gateway-api" >/dev/null &&
        k wait --for=condition=Established --timeout=30s crd/gateways.gateway.networking.k8s.io \
            crd/gatewayclasses.gateway.networking.k8s.io crd/httproutes.gateway.networking.k8s.io >/dev/null &&
        k apply --filename "$here/ingress.yaml" >/dev/null || return
    daemon 1 ingress env KUBECONFIG="$pki/ingress.kubeconfig" "$traefik/traefik" \
        --global.checknewversion=false --global.sendanonymoususage=false --log.level=INFO \
        --accesslog=true --accesslog.filepath="$state/log/ingress-access.log" \
        --ping=true --entrypoints.traefik.address=127.0.0.1:8088 \
        --entrypoints.web.address=$node1:80 --entrypoints.websecure.address=$node1:443 --entrypoints.websecure.http.tls=true \
        --providers.kubernetesingress=true --providers.kubernetesingress.ingressendpoint.ip=$node1 \
        --providers.kubernetesgateway=true --providers.kubernetesgateway.statusaddress.ip=$node1
    until_done 60 "Ingress and Gateway controller" net curl -fsS -m 2 http://127.0.0.1:8088/ping
}

wait_until_served() {
    until_done 90 "DNS on both nodes" k --namespace kube-system rollout status daemonset/coredns --timeout=2s &&
        until_done 60 "the Gateway is programmed" \
            k --namespace gateway wait gateway/web --for=condition=Programmed --timeout=1s
}
