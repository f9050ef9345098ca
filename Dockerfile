# imcluster in an image with nothing else in it: `docker build --tag imcluster:0.1.0 .`. Runs as nobody in particular and
# writes nothing to its disk. `make image` makes the same without Docker.
FROM rust:1.95-bookworm AS build
RUN apt-get update && apt-get install -y --no-install-recommends libssl-dev pkg-config && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY Cargo.toml Cargo.lock ./
COPY src src
COPY proto proto
COPY runtime runtime
COPY comet comet
COPY logic logic
COPY job job
COPY operator operator
COPY e2e e2e
# The build folder is a cache and not part of the layer, so what e2e/images/imcluster.toml lists is put aside.
RUN --mount=type=cache,target=/usr/local/cargo/registry --mount=type=cache,target=/src/target \
    cargo build --locked --profile dist -p imcluster -p e2e --bin imcluster --bin image \
    && target/dist/image imcluster --root /image

# A test compares what follows with that list.
FROM scratch
COPY --from=build /image/ /
ENV PATH=/ SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt
LABEL org.opencontainers.image.description="Keeps connections and pushes messages to members, rooms and everyone"
LABEL org.opencontainers.image.licenses="MIT"
LABEL org.opencontainers.image.source="https://github.com/imcluster/imcluster"
LABEL org.opencontainers.image.title="imcluster"
USER 65532:65532
# Clients: TCP, WebSocket, WebSocket over TLS, TCP over TLS. Between services: comet. Backends: HTTP. Logic. Admin.
EXPOSE 3101 3102 3103 3104 3109 3111 3119 3131
ENTRYPOINT ["/imcluster"]
