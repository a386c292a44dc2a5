# The command `waypost`, with all that it can do, in an image.
#
#   docker build -t waypost:0.1.0 .
#   docker run --rm -p 8500:8500 waypost:0.1.0 agent --bind 0.0.0.0
#
# In a container listen on all addresses (`--bind 0.0.0.0`): nobody outside reaches the usual 127.0.0.1.

# Both stages are of the same Debian, so that the program meets the C library that it was linked with.
FROM rust:1.95-slim-bookworm AS build
WORKDIR /source
COPY . .
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/source/target \
    cargo build --locked --release --package waypost-cli \
 && install -D --strip target/release/waypost /out/waypost

# The C library, root certificates to trust, and nobody's rights.
FROM debian:bookworm-slim
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build /out/waypost /usr/local/bin/waypost
USER 65532:65532
ENTRYPOINT ["/usr/local/bin/waypost"]
CMD ["help"]
