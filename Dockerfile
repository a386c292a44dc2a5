# The command `waypost` in an image.
#
#   docker build -t waypost:0.1.0 .
#   docker run --rm -p 8500:8500 waypost:0.1.0 agent --bind 0.0.0.0
#
# In a container it must listen on all addresses (`--bind 0.0.0.0`): 127.0.0.1, the default, is not
# reachable from outside.

# Both stages use the same Debian release, and so the same C library.
FROM rust:1.95-slim-bookworm AS build
WORKDIR /source
COPY . .
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/source/target \
    cargo build --locked --profile dist --package waypost-cli --features otlp \
 && install -D target/dist/waypost /out/waypost

# Debian with root certificates. The program runs as an unprivileged user.
FROM debian:bookworm-slim
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build /out/waypost /usr/local/bin/waypost
USER 65532:65532
ENTRYPOINT ["/usr/local/bin/waypost"]
CMD ["help"]
