# One authority for everybody and one for the aggregation layer, keys of a curve, and a kubeconfig for each account.

make_certificates() (
    cd "$pki" || return
    authority ca && authority front-proxy-ca || return
    leaf apiserver /CN=kube-apiserver serverAuth \
        "DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc,DNS:localhost,IP:127.0.0.1,IP:$node1,IP:10.96.0.1" &&
        leaf kubelet-client /O=system:masters/CN=kube-apiserver-kubelet-client clientAuth &&
        issuer=front-proxy-ca leaf front-proxy-client /CN=front-proxy-client clientAuth &&
        leaf admin /O=system:masters/CN=admin clientAuth &&
        leaf controllers /CN=system:kube-controller-manager clientAuth &&
        leaf scheduler /CN=system:kube-scheduler clientAuth &&
        leaf proxy /CN=system:kube-proxy clientAuth &&
        leaf ingress /CN=ingress-controller clientAuth || return
    for n in 1 2; do
        leaf node$n /O=system:nodes/CN=system:node:node$n clientAuth &&
            leaf node$n-serving /O=system:nodes/CN=system:node:node$n serverAuth "DNS:node$n,IP:198.18.0.$n" || return
    done
    quietly openssl genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:2048 -out accounts.key &&
        quietly openssl pkey -in accounts.key -pubout -out accounts.pub || return
    # 127.0.0.1 where it will do: used outside of its namespace by mistake, such a file gets nobody on the line.
    for name in admin controllers scheduler ingress node1; do kubeconfig $name 127.0.0.1; done
    for name in proxy node2; do kubeconfig $name $node1; done
    mv admin.kubeconfig "$state/kubeconfig"
    say "certificates"
)

quietly() {
    local said
    said=$("$@" 2>&1) || { echo "$said" >&2 && return 1; }
}

authority() { # NAME
    quietly openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 -subj "/CN=imcluster test $1" \
        -keyout "$1.key" -out "$1.crt" -addext basicConstraints=critical,CA:TRUE \
        -addext keyUsage=critical,keyCertSign,cRLSign,digitalSignature
}

leaf() { # NAME SUBJECT USAGE [ALTERNATIVE-NAMES]
    local by=${issuer:-ca}
    {
        echo "basicConstraints = CA:FALSE"
        echo "keyUsage = critical, digitalSignature"
        echo "extendedKeyUsage = $3"
        [ -z "${4:-}" ] || echo "subjectAltName = $4"
    } >"$1.ext"
    quietly openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "$2" -keyout "$1.key" -out "$1.csr" &&
        quietly openssl x509 -req -in "$1.csr" -CA "$by.crt" -CAkey "$by.key" -CAcreateserial -days 30 \
            -extfile "$1.ext" -out "$1.crt"
}

kubeconfig() { # ACCOUNT SERVER
    (umask 077 && cat >"$1.kubeconfig") <<YAML
apiVersion: v1
kind: Config
clusters:
- name: imcluster
  cluster: {server: "https://$2:6443", certificate-authority-data: $(base64 -w0 ca.crt)}
users:
- name: $1
  user: {client-certificate-data: $(base64 -w0 "$1.crt"), client-key-data: $(base64 -w0 "$1.key")}
contexts:
- name: imcluster
  context: {cluster: imcluster, user: $1}
current-context: imcluster
YAML
}
