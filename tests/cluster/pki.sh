# One CA and the certificates of a cluster, valid for a year; the kubeconfigs beside them. Sourced after lib.sh.
# shellcheck shell=bash

new_key() { openssl ecparam -genkey -name prime256v1 -noout -out "$1"; }

# certificate NAME SUBJECT SANS
certificate() {
  local name=$1 subject=$2 sans=$3
  new_key "$PKI/$name.key"
  openssl req -new -key "$PKI/$name.key" -subj "$subject" -out "$PKI/$name.csr"
  printf 'subjectAltName=%s\nextendedKeyUsage=serverAuth,clientAuth\n' "$sans" > "$PKI/$name.ext"
  openssl x509 -req -in "$PKI/$name.csr" -CA "$PKI/ca.crt" -CAkey "$PKI/ca.key" -set_serial "0x$(openssl rand -hex 16)" \
    -days 365 -extfile "$PKI/$name.ext" -out "$PKI/$name.crt" 2>/dev/null
  rm "$PKI/$name.csr" "$PKI/$name.ext"
}

# kubeconfig NAME FILE: self-contained, so that it may be copied.
kubeconfig() {
  local name=$1 file=$2
  cat > "$file" <<YAML
apiVersion: v1
kind: Config
clusters:
- name: umbra-cluster
  cluster: {server: "https://$GATEWAY:6443", certificate-authority-data: $(base64 -w0 "$PKI/ca.crt")}
users:
- name: $name
  user: {client-certificate-data: $(base64 -w0 "$PKI/$name.crt"), client-key-data: $(base64 -w0 "$PKI/$name.key")}
contexts:
- name: umbra-cluster
  context: {cluster: umbra-cluster, user: $name}
current-context: umbra-cluster
YAML
  chmod 600 "$file"
}

# client NAME SUBJECT: a certificate and the kubeconfig that uses it.
client() {
  certificate "$1" "$2" "DNS:$1"
  kubeconfig "$1" "$PKI/$1.conf"
}

make_pki() {
  local nodes=$1 i
  mkdir -p "$PKI"
  new_key "$PKI/ca.key"
  openssl req -x509 -new -key "$PKI/ca.key" -out "$PKI/ca.crt" -days 365 -subj /CN=umbra-cluster-ca
  new_key "$PKI/service-account.key"
  openssl ec -in "$PKI/service-account.key" -pubout -out "$PKI/service-account.pub" 2>/dev/null
  certificate apiserver /CN=kube-apiserver \
    "IP:$GATEWAY,IP:10.96.0.1,IP:127.0.0.1,DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc"
  client admin /O=system:masters/CN=admin
  client controller-manager /CN=system:kube-controller-manager
  client scheduler /CN=system:kube-scheduler
  client kube-proxy /CN=system:kube-proxy
  for ((i = 1; i <= nodes; i++)); do
    certificate "node$i" "/O=system:nodes/CN=system:node:$(node_name "$i")" "DNS:$(node_name "$i"),IP:$(node_ip "$i")"
    kubeconfig "node$i" "$PKI/node$i.conf"
  done
  kubeconfig admin "$KUBECONFIG_OUT"
}
