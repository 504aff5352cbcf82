# Builds the gateway as one static program on an empty base.
#
#   podman build --format docker --platform linux/arm64 --build-arg OUTGATE_REVISION="$(git rev-parse HEAD)" .
#
# The platform is linux/amd64 or linux/arm64, either built on either; without one it is the builder's own. --format docker
# keeps the HEALTHCHECK, which the OCI format has no place for.

# Debian with gcc, and Rust as new as Cargo.toml's rust-version.
ARG BUILDER=rust:1.95-bookworm

FROM --platform=${BUILDPLATFORM:-linux/amd64} ${BUILDER} AS build
ARG TARGETARCH
WORKDIR /build

# mimalloc and ring are partly C. Debian names its compilers alike, native or cross, so they need no case each.
ENV CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_LINKER=x86_64-linux-gnu-gcc \
    CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc
# hadolint ignore=DL3008
RUN architecture="${TARGETARCH:-$(dpkg --print-architecture)}" \
    && case "$architecture" in \
      amd64) machine=x86_64 compiler=gcc-x86-64-linux-gnu ;; \
      arm64) machine=aarch64 compiler=gcc-aarch64-linux-gnu ;; \
      *) echo "the architecture is $architecture, expected amd64 or arm64" >&2; exit 1 ;; \
    esac \
    && rust_target="$machine-unknown-linux-gnu" \
    && echo "$rust_target" >/rust-target \
    && if ! command -v "$machine-linux-gnu-gcc"; then \
      apt-get update \
      && apt-get install --yes --no-install-recommends "$compiler" "libc6-dev-$architecture-cross" \
      && rm -rf /var/lib/apt/lists/*; \
    fi \
    && if ! [ -d "$(rustc --print sysroot)/lib/rustlib/$rust_target" ]; then rustup target add "$rust_target"; fi

# With --target the flags do not reach build scripts and procedural macros, which cannot be static.
ENV RUSTFLAGS="-C target-feature=+crt-static"

# Cargo.toml's release profile, unless a build that nobody will run in earnest is to be quick: cargo reads these.
ARG CARGO_PROFILE_RELEASE_LTO
ARG CARGO_PROFILE_RELEASE_OPT_LEVEL

# The dependencies alone, so that their layer lasts until Cargo.lock changes.
COPY Cargo.toml Cargo.lock ./
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    mkdir src \
    && echo 'fn main() {}' >src/main.rs \
    && touch src/lib.rs \
    && cargo build --locked --release --target "$(cat /rust-target)"

COPY src src
ARG OUTGATE_REVISION=unknown
# cargo compares times, and the sources are older than the placeholders it has just built.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    touch src/main.rs src/lib.rs \
    && OUTGATE_REVISION="$OUTGATE_REVISION" cargo build --locked --release --target "$(cat /rust-target)" \
    && cp "target/$(cat /rust-target)/release/outgate" /outgate

FROM scratch
ARG OUTGATE_REVISION=unknown
LABEL org.opencontainers.image.title="outgate" \
      org.opencontainers.image.description="An egress gateway: an HTTP forward proxy that lets through only what its allowlist names" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="0.1.0" \
      org.opencontainers.image.revision="$OUTGATE_REVISION"
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build /outgate /outgate
# In numbers, so that Kubernetes can tell that it is not root.
USER 65532:65532
EXPOSE 3128 9090
HEALTHCHECK --interval=10s --timeout=5s --start-period=5s CMD ["/outgate", "healthcheck"]
ENTRYPOINT ["/outgate"]
