#!/usr/bin/env bash
# Brings the example up, checks what it claims, and takes it down again. Needs a Docker engine, docker-compose (1.29 or later) or
# `docker compose`, curl and python3; and images, built as the README says. As root it also looks at what goes over the wire.
set -euo pipefail
cd "$(dirname "$0")"

if docker compose version >/dev/null 2>&1; then compose=(docker compose); else compose=(docker-compose); fi
compose+=(-p outrigger-example)
passed=0
ok() { passed=$((passed + 1)); echo "ok: $1"; }
fail() { echo "FAILED: $1" >&2; "${compose[@]}" ps >&2; "${compose[@]}" logs --tail=20 >&2; exit 1; }
# Looks until something is so, for half a minute.
until_so() {
  local what=$1; shift
  for _ in $(seq 300); do "$@" >/dev/null 2>&1 && { ok "$what"; return; }; sleep 0.1; done
  fail "$what"
}
trap '"${compose[@]}" down --volumes --timeout 30 >/dev/null 2>&1 || true' EXIT

began=$(date +%s%N)
"${compose[@]}" up -d --quiet-pull >/dev/null 2>&1 || "${compose[@]}" up -d
login=(curl -fsS -H "X-Forwarded-For: 81.2.69.142" -H "Content-Type: application/json"
  -d '{"username": "grace", "password": "amazing"}' http://127.0.0.1:18080/login)
until_so "a login goes through the outrigger" "${login[@]}"
took=$((($(date +%s%N) - began) / 1000000))
[ $took -lt 10000 ] || fail "the first login took $took ms"
echo "    first login $took ms after 'up'"
token=$("${login[@]}" | python3 -c 'import json, sys; print(json.load(sys.stdin)["token"])')

in_log() { "${compose[@]}" logs login-log | grep -q "$1"; }
until_so "the caller's country is in the log that a third container reads" in_log '"geo.country.iso_code":"GB"'

orders=(curl -fsS -H "Authorization: Bearer $token" http://127.0.0.1:18081/orders)
until_so "the shop tells grace her orders, having asked the login service" "${orders[@]}"
until_so "the login service's outrigger knows who asked" in_log '"outrigger.peer.identity":"spiffe://compose.example/shop"'

if [ "$(id -u)" = 0 ]; then
  said=$(python3 wire.py outrigger0 6144 "$token" "HTTP/1.1" "authorization" -- "${orders[@]}" 2>&1) || fail "TLS on the wire: $said"
  [ "$said" = tls ] && ok "on the wire between the two there is TLS, and the token is not to be seen"
fi

from_shop() { "${compose[@]}" exec -T shop-pod bash -c "$1"; }
from_shop 'exec 3<>/dev/tcp/login-pod/6143' || fail "the shop's pod does not reach the login service's at all"
from_shop 'exec 3<>/dev/tcp/login-pod/8080' 2>/dev/null && fail "the app answers around its outrigger"
ok "the login service cannot be reached around its outrigger"
plain=$(from_shop 'exec 3<>/dev/tcp/login-pod/6144; printf "GET /me HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n" >&3; head -1 <&3' || true)
case $plain in *" 403 "*) ok "without TLS the mesh port gives nothing away";; *) fail "plaintext to the mesh port: $plain";; esac

round=$(from_shop "exec 3<>/dev/tcp/login-pod/6143; printf 'GET /me HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer $token\r\nConnection: close\r\n\r\n' >&3; head -1 <&3" || true)
case $round in *" 403 "*) ok "nor does the public port, where no one proves who he is";; *) fail "plaintext to the public port: $round";; esac

scraped() {
  curl -fsS --data-urlencode "query=$1" http://127.0.0.1:19090/api/v1/query |
    python3 -c 'import json, sys; sys.exit(len(json.load(sys.stdin)["data"]["result"]) < int(sys.argv[1]))' "$2"
}
until_so "Prometheus scrapes both outriggers" scraped 'up == 1' 2
until_so "it knows requests by port" scraped 'outrigger_requests_total{port="mesh"} > 0' 1
until_so "it knows callers by country" scraped 'outrigger_client_requests_total{country="GB"} > 0' 1

started() { docker inspect -f '{{.State.StartedAt}}' "$("${compose[@]}" ps -q "$1")"; }
app=$(started login) outrigger=$(started login-outrigger)
"${compose[@]}" restart -t 10 login >/dev/null 2>&1
until_so "logins go on after the login service has restarted" "${login[@]}"
[ "$(started login)" != "$app" ] && [ "$(started login-outrigger)" = "$outrigger" ] || fail "the login service did not restart alone"
ok "it restarted alone; its outrigger went on"
app=$(started login)
"${compose[@]}" restart -t 30 login-outrigger >/dev/null 2>&1
until_so "logins go on after its outrigger has restarted" "${login[@]}"
[ "$(started login)" = "$app" ] && [ "$(started login-outrigger)" != "$outrigger" ] || fail "the outrigger did not restart alone"
ok "the outrigger restarted alone, too"

"${compose[@]}" stop -t 30 login-outrigger shop-outrigger >/dev/null 2>&1
for name in login-outrigger shop-outrigger; do
  code=$(docker inspect -f '{{.State.ExitCode}}' "$("${compose[@]}" ps -q -a $name 2>/dev/null || "${compose[@]}" ps -q $name)")
  [ "$code" = 0 ] || fail "$name ended with $code"
done
ok "outriggers end in order"
echo "$passed passed, 0 failed"
