set -eu
tls=
if [ -n "${TLS_CERTIFICATE:-}" ]; then
  printf %s "$TLS_CERTIFICATE" >/tmp/server.crt
  (umask 077 && printf %s "$TLS_KEY" >/tmp/server.key)
  printf %s "$TLS_CA" >/tmp/ca.crt
  tls="--port 0 --tls-port 6379 --tls-cert-file /tmp/server.crt --tls-key-file /tmp/server.key --tls-ca-cert-file /tmp/ca.crt
    --tls-auth-clients no"
fi
exec redis-server --bind 0.0.0.0 --save '' --requirepass "$REDIS_PASSWORD" $tls
