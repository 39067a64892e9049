//! nginx: one worker, a buffered JSON log, kept-alive connections to the app.

use super::{Addresses, Apps, Site};
use crate::certificates::SERVER_NAME;

pub(super) fn configuration(site: &Site<'_>) -> String {
    let Addresses { http1, http2, tls, mesh, grpc, .. } = site.addresses;
    let Apps { http, grpc: grpc_app, .. } = site.apps;
    let (log, dir) = (site.log(), site.dir.display());
    format!(
        "worker_processes 1; daemon off; pid {dir}/nginx.pid; error_log {dir}/nginx.err;
worker_rlimit_nofile 65536;
events {{ worker_connections 24000; }}
http {{
  log_format json escape=json '{{\"time\":\"$time_iso8601\",\"client\":\"$remote_addr\",\"method\":\"$request_method\",\"path\":\"$uri\",\
\"host\":\"$host\",\"protocol\":\"$server_protocol\",\"status\":$status,\"bytes\":$body_bytes_sent,\"seconds\":$request_time,\
\"agent\":\"$http_user_agent\",\"id\":\"$request_id\"}}';
  access_log {log} json buffer=32k flush=1s;
  keepalive_requests 1000000000; keepalive_timeout 650s;
  upstream app {{ server {http}; keepalive 256; keepalive_requests 1000000000; }}
  upstream grpc {{ server {grpc_app}; keepalive 256; keepalive_requests 1000000000; }}
  proxy_http_version 1.1; proxy_set_header Connection \"\"; proxy_set_header Host $host;
  proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for; proxy_set_header X-Request-ID $request_id;
  client_body_temp_path {dir}/b; proxy_temp_path {dir}/p; fastcgi_temp_path {dir}/f; uwsgi_temp_path {dir}/u; scgi_temp_path {dir}/s;
  server {{
    listen {http1};
    location / {{ proxy_pass http://app; }}
    location /websocket {{
      proxy_pass http://app; proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection upgrade;
      proxy_set_header Host $host; proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
      proxy_set_header X-Request-ID $request_id; proxy_read_timeout 650s;
    }}
  }}
  server {{ listen {http2} http2; location / {{ proxy_pass http://app; }} }}
  server {{
    listen {grpc} http2; client_max_body_size 0; grpc_read_timeout 650s;
    location / {{
      grpc_pass grpc://grpc; grpc_set_header X-Forwarded-For $proxy_add_x_forwarded_for; grpc_set_header X-Request-ID $request_id;
    }}
  }}
  ssl_protocols TLSv1.3; ssl_ecdh_curve X25519; ssl_session_tickets off; ssl_session_cache off;
  ssl_conf_command Ciphersuites TLS_AES_128_GCM_SHA256;
  server {{
    listen {tls} ssl; ssl_certificate {dir}/direct.crt; ssl_certificate_key {dir}/direct.key;
    ssl_client_certificate {dir}/bundle.pem; ssl_verify_client on; ssl_verify_depth 3;
    location / {{ proxy_pass http://app; }}
  }}
  upstream tls {{ server {tls}; keepalive 256; keepalive_requests 1000000000; }}
  server {{
    listen {mesh};
    location / {{
      proxy_pass https://tls; proxy_ssl_certificate {dir}/direct.crt; proxy_ssl_certificate_key {dir}/direct.key;
      proxy_ssl_trusted_certificate {dir}/bundle.pem; proxy_ssl_verify on; proxy_ssl_verify_depth 3;
      proxy_ssl_name {SERVER_NAME}; proxy_ssl_protocols TLSv1.3; proxy_ssl_session_reuse off;
    }}
  }}
}}
"
    )
}
