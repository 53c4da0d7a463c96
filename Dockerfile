# The operator's image: one static binary and nothing else.
#
#   docker build -t streamsession-operator:0.1.0 .

FROM rust:1.95-slim-bookworm AS build
WORKDIR /src
COPY . .
# A static glibc, for whatever architecture this builds on. With --target the flag is for the operator alone: the compiler loads macros as shared
# libraries, which a static libc can't be linked into. The caches are mounts, so the binary is copied out of one in the same step.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    target="$(rustc -vV | sed -n 's/^host: //p')" \
    && RUSTFLAGS='-C target-feature=+crt-static' \
       cargo build --release --locked --target "$target" --bin streamsession-operator \
    && cp "target/$target/release/streamsession-operator" /streamsession-operator

FROM scratch
LABEL org.opencontainers.image.title="streamsession-operator" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /streamsession-operator /streamsession-operator
# By number: there is no /etc/passwd, and Kubernetes' runAsNonRoot can't check a name.
USER 65532:65532
EXPOSE 8080
ENTRYPOINT ["/streamsession-operator"]
CMD ["run"]
