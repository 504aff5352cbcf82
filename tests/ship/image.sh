# shellcheck shell=bash
# shellcheck disable=SC2154 # run sets what both use.

# The image: built from the Dockerfile with buildah, run with podman as the chart would run it.
# Sourced by run, which has check, ok and not_ok.

revision=$(git rev-parse HEAD)
image=localhost/outgate-ship:amd64
foreign_image=localhost/outgate-ship:arm64
debian=localhost/outgate-ship-debian:bookworm

image_checks() {
  check "base images" base_images
  check "the image builds" build_image amd64
  check "what the image is" what_the_image_is "$image" amd64
  check "runs read-only, without capabilities and new privileges" runs_restricted
  # Its speed is nobody's concern here, so its build is a quick one.
  check "the image for arm64 builds" build_image arm64 \
    --build-arg CARGO_PROFILE_RELEASE_LTO=off --build-arg CARGO_PROFILE_RELEASE_OPT_LEVEL=1
  check "what the image for arm64 is" what_the_image_is "$foreign_image" arm64
  check "the program for arm64 runs" runs_in_emulation
}

# Registries of images may be out of reach, so the base of the build stage is made here: Debian, and this machine's
# Rust. The origin and the workload of the cluster checks run on the same Debian.
base_images() {
  podman image exists "$debian" || import_debian
  builder=localhost/outgate-ship-rust:$(rustc --version | cut --delimiter=' ' --fields=2)-x86_64-aarch64
  podman image exists "$builder" || import_rust
}

# Run by check, where `set -e` is off: each step says itself that the next needs it.
import_debian() {
  retry mmdebstrap --variant=minbase --include=gcc,libc6-dev,ca-certificates,curl,python3 \
    --dpkgopt='path-exclude=/usr/share/doc/*' bookworm "$cache/debian.tar" &&
    podman import "$cache/debian.tar" "$debian" &&
    rm "$cache/debian.tar"
}

import_rust() {
  local container mounted sysroot
  sysroot=$(rustc --print sysroot) || return
  [ -d "$sysroot/lib/rustlib/aarch64-unknown-linux-gnu" ] || retry rustup target add aarch64-unknown-linux-gnu || return
  container=$(buildah from "$debian") &&
    mounted=$(buildah mount "$container") &&
    mkdir --parents "$mounted/usr/local/lib/rustlib" "$mounted/usr/local/cargo" &&
    cp --archive "$sysroot"/bin/{cargo,rustc} "$mounted/usr/local/bin/" &&
    cp --archive "$sysroot"/lib/*.so* "$mounted/usr/local/lib/" &&
    cp --archive "$sysroot"/lib/rustlib/*-linux-gnu "$mounted/usr/local/lib/rustlib/" &&
    buildah unmount "$container" &&
    buildah config --env CARGO_HOME=/usr/local/cargo "$container" &&
    buildah commit --rm "$container" "$builder"
}

# build_image ARCHITECTURE [ARGUMENT…]
build_image() {
  local architecture=$1
  shift
  # The stage that compiles has a name of its own, so that its layers of earlier revisions can go.
  replacing "${image%:*}-build:$architecture" build_stage build "$architecture" --tag "${image%:*}-build:$architecture" "$@" &&
    replacing "${image%:*}:$architecture" build_stage "" "$architecture" --tag "${image%:*}:$architecture" "$@"
}

# replacing IMAGE COMMAND…: runs the command that makes the image, and removes what had its name before.
replacing() {
  local name=$1 before
  shift
  before=$(podman image inspect "$name" --format '{{.Id}}' 2>/dev/null) || before=
  "$@" || return
  [ -z "$before" ] || [ "$before" = "$(podman image inspect "$name" --format '{{.Id}}')" ] || podman rmi "$before" || true
}

# build_stage STAGE ARCHITECTURE [ARGUMENT…], the last stage if STAGE is empty.
build_stage() {
  local stage=$1 architecture=$2
  shift 2
  # The crates that cargo has fetched for the other checks serve here too.
  retry buildah bud --isolation chroot --format docker --layers ${stage:+--target "$stage"} --build-arg "BUILDER=$builder" \
    --platform "linux/$architecture" --build-arg "OUTGATE_REVISION=$revision" "$@" \
    --volume "${CARGO_HOME:-$HOME/.cargo}/registry:/usr/local/cargo/registry" .
}

# what_the_image_is IMAGE ARCHITECTURE
what_the_image_is() {
  local mounted status=0
  mounted=$(podman image mount "$1") || return
  podman image inspect "$1" | "$python" tests/ship/image.py "$2" "$revision" "$mounted" || status=1
  podman image unmount "$1"
  return $status
}

# Its own health check, for it has no shell and no other program to ask with.
runs_restricted() {
  local container=outgate-ship-restricted
  podman run --detach --replace --name "$container" --read-only --cap-drop all --security-opt no-new-privileges \
    --network none --env OUTGATE_DNS_SERVERS=127.0.0.1 "$image" &&
    eventually podman exec "$container" /outgate healthcheck &&
    podman exec "$container" /outgate healthcheck --live &&
    podman stop "$container" &&
    [ "$(podman inspect "$container" --format '{{.State.ExitCode}}')" = 0 ] &&
    podman rm "$container"
}

# By the emulator, and in a container without a network, where its ports are nobody else's.
runs_in_emulation() {
  local mounted status=0
  mounted=$(podman image mount "$foreign_image") || return
  podman run --rm --network none --volume "$mounted/outgate:/outgate:ro" --volume "$(command -v qemu-aarch64-static):/qemu:ro" \
    --volume "$PWD/tests/ship/emulated.sh:/emulated.sh:ro" "$debian" sh -e /emulated.sh || status=1
  podman image unmount "$foreign_image"
  return $status
}
