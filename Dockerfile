# An image with one static binary, the CA certificates, and nothing else.
#
#   docker build --build-arg OUTGATE_REVISION=$(git rev-parse HEAD) -t outgate .
#
# Another architecture: --build-arg TARGETARCH=arm64, which BuildKit sets by itself for --platform.

# Any image with a Rust toolchain, gcc and Debian's package manager.
ARG BUILDER=docker.io/library/rust:1.95-slim-bookworm

FROM ${BUILDER} AS build
ARG TARGETARCH=amd64
WORKDIR /src

# The toolchain of the target; a cross compiler only where the target is another machine.
COPY deploy/image/toolchain /usr/local/bin/outgate-toolchain
RUN outgate-toolchain install "${TARGETARCH}"

# Dependencies are built in a layer of their own: it stands until Cargo.lock changes.
COPY Cargo.toml Cargo.lock ./
COPY deploy/image/dependencies /usr/local/bin/outgate-dependencies
RUN outgate-dependencies "${TARGETARCH}"

COPY src src
ARG OUTGATE_REVISION=unknown
ENV OUTGATE_REVISION=${OUTGATE_REVISION}
RUN outgate-toolchain build "${TARGETARCH}" \
 && mkdir -p /image/etc/ssl/certs \
 && cp /etc/ssl/certs/ca-certificates.crt /image/etc/ssl/certs/ \
 && cp /src/target/outgate /image/outgate

FROM scratch
ARG OUTGATE_REVISION=unknown
LABEL org.opencontainers.image.title="outgate" \
      org.opencontainers.image.description="An egress gateway that lets through only what its allowlist names" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.revision="${OUTGATE_REVISION}"
COPY --from=build /image/ /
# Nobody's number, and not root's.
USER 65532:65532
EXPOSE 3128 9090
HEALTHCHECK --interval=10s --timeout=5s --start-period=5s CMD ["/outgate", "healthcheck"]
ENTRYPOINT ["/outgate"]
