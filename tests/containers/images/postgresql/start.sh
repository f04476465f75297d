set -eu
bin=/usr/lib/postgresql/15/bin
data=/var/lib/postgresql/data
printf %s "$POSTGRES_PASSWORD" >/tmp/password
"$bin/initdb" -D "$data" -U postgres -A scram-sha-256 --pwfile=/tmp/password --no-sync >/dev/null
rm /tmp/password
tls=
if [ -n "${TLS_CERTIFICATE:-}" ]; then
  printf %s "$TLS_CERTIFICATE" >"$data/server.crt"
  (umask 077 && printf %s "$TLS_KEY" >"$data/server.key")
  printf %s "$TLS_CA" >"$data/ca.crt"
  tls="-c ssl=on -c ssl_ca_file=ca.crt"
  printf 'hostssl all +certified all cert\nhostssl all all all scram-sha-256\nlocal all all scram-sha-256\n' >"$data/pg_hba.conf"
else
  echo 'host all all all scram-sha-256' >>"$data/pg_hba.conf"
fi
exec "$bin/postgres" -D "$data" -c listen_addresses=* -c fsync=off $tls
