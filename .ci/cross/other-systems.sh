#!/bin/bash
# other-systems.sh ENV: whether the addon and the server compile for macOS and Windows, with the toolchain that ENV, the
# env.sh of toolchain.sh, puts in place. Nothing is linked as it is published and nothing run: machines of those systems
# do that (.github/workflows/build.yml), where Windows is the target of Microsoft's linker instead of the one here.
set -euo pipefail
# shellcheck source=/dev/null
. "${1:?usage: other-systems.sh ENV}"
cd "$(dirname "$0")/../.."

# With symbols looked up at run time nothing is taken from it, but the build script of napi wants it to be there.
LIBNODE_PATH=$(mktemp -d)
trap 'rm -r "$LIBNODE_PATH"' EXIT
: > "$LIBNODE_PATH/libnode.dll"
export LIBNODE_PATH RUSTC_BOOTSTRAP=1

for target in aarch64-apple-darwin x86_64-apple-darwin x86_64-pc-windows-gnu; do
  for product in crates/node/Cargo.toml 'crates/elbus/Cargo.toml --features server,rpc'; do
    # shellcheck disable=SC2086
    cargo-zigbuild check --quiet --locked -Zbuild-std=std,panic_unwind --target "$target" --manifest-path $product
    echo "ok $target ${product%/Cargo.toml*}"
  done
done
