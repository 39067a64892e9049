# One builder, and an image per target: outrigger (the sidecar), outrigger-init (the same with what `outrigger init` needs),
# outrigger-control, and those of the examples.
#
#   docker build --target outrigger -t outrigger .
#
# Where no public registry is reached, base images come from elsewhere: --build-arg BUILDER=... (Rust 1.95 or later, a C compiler)
# and --build-arg BASE=... (Debian with nftables, or with an apt that reaches a mirror).
ARG BUILDER=docker.io/library/rust:1.95-bookworm
ARG BASE=docker.io/library/debian:bookworm-slim

# hadolint ignore=DL3006
FROM ${BUILDER} AS builder
WORKDIR /src
COPY . .
# Static on the gnu target; proc macros are for the builder itself, which is why the target is named.
ENV RUSTFLAGS="-C target-feature=+crt-static"
RUN target="$(rustc --print host-tuple)" \
 && cargo build --release --locked --target "$target" -p outrigger -p control \
 && mkdir -p /out/empty \
 && cp "target/$target/release/outrigger" "target/$target/release/outrigger-control" LICENSE Cargo.lock /out/

FROM scratch AS outrigger
LABEL org.opencontainers.image.title="outrigger" \
      org.opencontainers.image.description="An L7 sidecar proxy: who called, from where, how it went" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=builder /out/LICENSE /out/Cargo.lock /usr/share/doc/outrigger/
# Volumes mounted here belong to the sidecar.
COPY --from=builder --chown=6102:6102 /out/empty /var/log/outrigger
COPY --from=builder --chown=6102:6102 /out/empty /var/run/outrigger
COPY --from=builder /out/outrigger /outrigger
USER 6102:6102
EXPOSE 6140 6143 6191
ENTRYPOINT ["/outrigger"]
CMD ["run", "--config", "/etc/outrigger/outrigger.yaml"]

FROM scratch AS outrigger-control
LABEL org.opencontainers.image.title="outrigger-control" \
      org.opencontainers.image.description="Certificate authority and pod injector for outriggers" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=builder /out/LICENSE /out/Cargo.lock /usr/share/doc/outrigger-control/
COPY --from=builder --chown=6102:6102 /out/empty /var/lib/outrigger
COPY --from=builder --chown=6102:6102 /out/empty /var/run/outrigger
COPY --from=builder /out/outrigger-control /outrigger-control
USER 6102:6102
EXPOSE 6191 8443
ENTRYPOINT ["/outrigger-control"]

# hadolint ignore=DL3006
FROM ${BASE} AS outrigger-init
LABEL org.opencontainers.image.title="outrigger-init" \
      org.opencontainers.image.description="The outrigger with nftables, for outrigger init" \
      org.opencontainers.image.licenses="Apache-2.0"
# hadolint ignore=DL3008
RUN command -v nft >/dev/null \
 || { apt-get update && apt-get install -y --no-install-recommends nftables && rm -rf /var/lib/apt/lists/* /var/cache/apt/*; }
COPY --from=builder /out/LICENSE /out/Cargo.lock /usr/share/doc/outrigger/
COPY --from=builder /out/outrigger /outrigger
# Netfilter is root's, with NET_ADMIN; whoever runs the sidecar from this image names 6102 as the user.
# hadolint ignore=DL3002
USER 0:0
ENTRYPOINT ["/outrigger"]
CMD ["init"]

FROM builder AS examples
RUN target="$(rustc --print host-tuple)" \
 && cargo build --release --locked --target "$target" -p login-service -p shop-service \
 && cp "target/$target/release/login-service" "target/$target/release/shop-service" /out/

FROM scratch AS login-service
COPY --from=examples /out/login-service /login-service
USER 10001:10001
ENTRYPOINT ["/login-service"]
FROM scratch AS shop-service
COPY --from=examples /out/shop-service /shop-service
USER 10001:10001
ENTRYPOINT ["/shop-service"]
