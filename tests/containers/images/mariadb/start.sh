set -eu
mariadb-install-db --no-defaults --datadir=/var/lib/mysql --skip-test-db >/dev/null
printf "CREATE USER root@'%%' IDENTIFIED BY '%s';\nGRANT ALL ON *.* TO root@'%%' WITH GRANT OPTION;\nDROP USER ''@localhost;\n" \
  "$MARIADB_ROOT_PASSWORD" >/tmp/users.sql
tls=
if [ -n "${TLS_CERTIFICATE:-}" ]; then
  printf %s "$TLS_CERTIFICATE" >/tmp/server.crt
  (umask 077 && printf %s "$TLS_KEY" >/tmp/server.key)
  printf %s "$TLS_CA" >/tmp/ca.crt
  tls="--ssl-ca=/tmp/ca.crt --ssl-cert=/tmp/server.crt --ssl-key=/tmp/server.key --require-secure-transport=on"
fi
exec mariadbd --no-defaults --datadir=/var/lib/mysql --socket=/tmp/mariadb.sock --bind-address=0.0.0.0 --skip-name-resolve \
  --init-file=/tmp/users.sql $tls
