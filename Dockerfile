# imcluster in an image without a shell: `make image`. Runs as nobody in particular and writes nothing to its disk.
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
COPY e2e e2e
# The build folder is a cache and not part of the layer, so the program and the libraries that the final image may lack
# (TLS and compression under librdkafka) are put aside.
RUN --mount=type=cache,target=/usr/local/cargo/registry --mount=type=cache,target=/src/target \
    cargo build --locked --profile dist --bin imcluster \
    && install -D target/dist/imcluster /image/imcluster \
    && ldd /image/imcluster | awk '$3 ~ /lib(ssl|crypto|z|zstd)[.]so/ { print $3 }' | while read -r library; do \
        install -D -m 644 "$(realpath "$library")" "/image/usr$(dirname "${library#/usr}")/$(basename "$library")"; \
    done

FROM gcr.io/distroless/cc-debian12:nonroot
COPY --from=build /image/ /
USER 65532:65532
# Clients: TCP, WebSocket, WebSocket over TLS, TCP over TLS. Between services: comet. Backends: HTTP. Logic. Admin.
EXPOSE 3101 3102 3103 3104 3109 3111 3119 3131
ENTRYPOINT ["/imcluster"]
