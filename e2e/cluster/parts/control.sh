# etcd, API server, controller manager and scheduler, as processes of node 1. They run with the flags of a cluster that
# people use, but for how long a lost node is believed in, and how fast the controllers may go: so that tests wait less.

start_control_plane() {
    daemon 1 etcd etcd --data-dir "$state/etcd" --log-level warn --unsafe-no-fsync --quota-backend-bytes 2147483648 \
        --listen-client-urls http://127.0.0.1:2379 --advertise-client-urls http://127.0.0.1:2379 \
        --listen-peer-urls http://127.0.0.1:2380
    until_done 30 "etcd answers" net curl -fsS -m 2 http://127.0.0.1:2379/health || return
    # OwnerReferencesPermissionEnforcement is off by default and on in OpenShift: an operator has to work with it.
    daemon 1 apiserver kube-apiserver --etcd-servers http://127.0.0.1:2379 --secure-port 6443 --advertise-address $node1 \
        --service-cluster-ip-range $services --allow-privileged --authorization-mode Node,RBAC \
        --enable-admission-plugins NodeRestriction,OwnerReferencesPermissionEnforcement \
        --default-not-ready-toleration-seconds 5 --default-unreachable-toleration-seconds 5 \
        --audit-policy-file "$here/audit.yaml" --audit-log-path "$state/audit.log" --audit-log-maxsize 4096 \
        --tls-cert-file "$pki/apiserver.crt" --tls-private-key-file "$pki/apiserver.key" --client-ca-file "$pki/ca.crt" \
        --kubelet-client-certificate "$pki/kubelet-client.crt" --kubelet-client-key "$pki/kubelet-client.key" \
        --kubelet-certificate-authority "$pki/ca.crt" --kubelet-preferred-address-types InternalIP \
        --service-account-issuer https://kubernetes.default.svc.cluster.local \
        --service-account-key-file "$pki/accounts.pub" --service-account-signing-key-file "$pki/accounts.key" \
        --requestheader-client-ca-file "$pki/front-proxy-ca.crt" --requestheader-allowed-names front-proxy-client \
        --requestheader-username-headers X-Remote-User --requestheader-group-headers X-Remote-Group \
        --requestheader-extra-headers-prefix X-Remote-Extra- --enable-aggregator-routing \
        --proxy-client-cert-file "$pki/front-proxy-client.crt" --proxy-client-key-file "$pki/front-proxy-client.key"
    until_done 120 "the API server is ready" k get --raw /readyz || return
    daemon 1 controllers kube-controller-manager --kubeconfig "$pki/controllers.kubeconfig" --bind-address 127.0.0.1 \
        --leader-elect=false --use-service-account-credentials --kube-api-qps 300 --kube-api-burst 600 \
        --node-monitor-period 1s --node-monitor-grace-period 10s \
        --service-account-private-key-file "$pki/accounts.key" --root-ca-file "$pki/ca.crt" \
        --cluster-signing-cert-file "$pki/ca.crt" --cluster-signing-key-file "$pki/ca.key" \
        --service-cluster-ip-range $services --cluster-cidr $pods --allocate-node-cidrs=false
    daemon 1 scheduler kube-scheduler --kubeconfig "$pki/scheduler.kubeconfig" --bind-address 127.0.0.1 \
        --leader-elect=false --kube-api-qps 300 --kube-api-burst 600
    until_done 60 "controllers run" k get serviceaccount default
}
