#!/bin/bash
# toolchain.sh FOLDER: a Rust compiler with the sources of its standard library, zig as linker and C compiler, and what
# runs the programs (qemu-user, C libraries of ARM, musl's loader), all unpacked in FOLDER. Nothing is installed on the
# system. A part that is there stays; one that is not complete is made anew. FOLDER/env.sh sets what cargo needs.
#
# For x86-64 Debian with apt, gcc and Python 3 with venv. The compiler comes from Debian 13, as rustup brings nothing
# where its server cannot be reached; it needs a newer C library than Debian 12 has, so it is started by its own loader.
# A standard library fits only the compiler it was built with and none is packaged for musl: it is built for each target
# from the sources that come with the compiler.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
folder=${1:?usage: toolchain.sh FOLDER}
mkdir -p "$folder"
folder=$(cd "$folder" && pwd)

COMPILER=trixie
# The oldest C library that the ARM builds of Node.js start with is older than this one.
RUNTIME=bookworm

# The mirror of Debian that this machine uses.
mirror=$(find /etc/apt/sources.list{,.d} -type f -exec grep -hvE '^ *#' {} + 2>/dev/null |
  grep -oE '[a-z]+://[^ /]*/debian/?( |$)' | sed 1q || true)
mirror=${mirror:-http://deb.debian.org/debian}
keys=/usr/share/keyrings/debian-archive-keyring.gpg

# part NAME STEP: runs the function STEP, unless it has been carried through as it is written now.
part() {
  local stamp=$folder/$1.done version
  # What is unpacked names its folder.
  version=$({ echo "$folder $COMPILER $RUNTIME"; declare -f "$2" apt_release fetch unpack; cat "$here/requirements.txt"; } | sha256sum)
  [[ -f $stamp && $(<"$stamp") == "$version" ]] && return
  echo "toolchain: $1"
  rm -rf "$stamp" "${folder:?}/$1"
  mkdir -p "$folder/$1"
  "$2" "$folder/$1"
  rm -rf "$folder/$1/debs"
  echo "$version" > "$stamp"
}

# apt_release FOLDER SUITE ARCHITECTURE…: lists of packages apart from the system's.
apt_release() {
  local apt=$1/apt suite=$2 architectures
  shift 2
  architectures=$(printf '"%s"; ' "$@")
  mkdir -p "$apt"/{lists/partial,cache/archives/partial,state,parts} "${apt%/apt}/debs"
  : > "$apt/state/status"
  echo "deb [signed-by=$keys] $mirror $suite main" > "$apt/sources.list"
  cat > "$apt/apt.conf" <<CONF
Dir::Etc::sourcelist "$apt/sources.list"; Dir::Etc::sourceparts "$apt/parts"; Dir::Etc::preferencesparts "$apt/parts";
Dir::State "$apt/state"; Dir::State::lists "$apt/lists"; Dir::State::status "$apt/state/status"; Dir::Cache "$apt/cache";
APT::Architecture "amd64"; APT::Architectures { $architectures};
Acquire::Languages "none"; APT::Sandbox::User "root"; Acquire::Retries "3";
CONF
  export APT_CONFIG=$apt/apt.conf
  apt-get -qq update
}

# fetch FOLDER PACKAGE…: the packages themselves, into FOLDER/debs.
fetch() {
  local debs=$1/debs
  shift
  (cd "$debs" && apt-get -qq download "$@")
}

# unpack FROM INTO [PATTERN]
unpack() {
  local deb
  mkdir -p "$2"
  for deb in "$1"/debs/${3:-*}.deb; do dpkg-deb -x "$deb" "$2"; done
}

rust() {
  local needed tool
  apt_release "$1" "$COMPILER" amd64
  # What the compiler needs to run, without the C compiler that its package asks for.
  needed=$(apt-get install --print-uris -qq -y --no-install-recommends rustc-web cargo-web | awk '{ print $2 }' |
    grep -vE '^(gcc|cpp|binutils|libbinutils|lib[a-z]*san[0-9]|libgprof|libcc1|libctf|libisl|libmp[cf]|linux-libc|libc-dev|libc6-dev|libcrypt-dev|libgomp|libitm|libquadmath|libgcc-[0-9]+-dev|rpcsvc)' |
    sed -E 's/_.*_([a-z0-9]+)\.deb$/:\1/; s/:all$//')
  # shellcheck disable=SC2086
  fetch "$1" $needed rust-web-src
  unpack "$1" "$1/root"
  # Of the sources the standard library is all that is compiled.
  rm -rf "$1"/root/usr/share/{doc,man,locale} "$1"/root/usr/src/*/{compiler,src} "$1/apt"
  mkdir -p "$1/bin"
  for tool in rustc cargo; do
    {
      printf '#!/bin/bash\nexec %q --library-path %q --argv0 %q %q ' \
        "$1/root/usr/lib64/ld-linux-x86-64.so.2" "$1/root/usr/lib/x86_64-linux-gnu" "$tool" "$1/root/usr/bin/$tool"
      [[ $tool == cargo ]] || printf -- '--sysroot %q ' "$1/root/usr"
      echo '"$@"'
    } > "$1/bin/$tool"
    chmod +x "$1/bin/$tool"
  done
  "$1/bin/rustc" --version
}

zig() {
  python3 -m venv "$1/venv"
  "$1/venv/bin/pip" --quiet --disable-pip-version-check install -r "$here/requirements.txt"
  mkdir -p "$1/bin"
  ln -s ../venv/bin/cargo-zigbuild "$1/bin/cargo-zigbuild"
}

emulators() {
  local arch
  apt_release "$1" "$RUNTIME" amd64 arm64 armhf
  # shellcheck disable=SC2046
  fetch "$1" qemu-user-static $(printf '%s ' {libc6,libgcc-s1,libstdc++6,libatomic1}:{arm64,armhf})
  for arch in arm64 armhf; do unpack "$1" "$1/$arch" "*_$arch"; done
  unpack "$1" "$1/qemu" 'qemu-user-static_*_amd64'
  mkdir "$1/bin"
  mv "$1"/qemu/usr/bin/qemu-{aarch64,arm}-static "$1/bin/"
  rm -rf "$1/qemu" "$1/apt"
}

musl() {
  local arch deb
  # Node.js ends with a fault at its start with the musl of Debian 12.
  apt_release "$1" "$COMPILER" amd64 arm64
  fetch "$1" musl:amd64 musl:arm64
  for arch in x86_64:amd64 aarch64:arm64; do
    unpack "$1" "$1/package" "musl_*_${arch#*:}"
    mkdir -p "$1/${arch%:*}/lib"
    deb=$1/package/usr/lib/ld-musl-${arch%:*}.so.1
    cp -L "$deb" "$1/${arch%:*}/lib/"
    rm -rf "$1/package"
  done
  rm -rf "$1/apt"
}

# Each downloads on its own.
pids=()
for name in rust zig emulators musl; do
  part "$name" "$name" &
  pids+=($!)
done
for pid in "${pids[@]}"; do wait "$pid"; done

cat > "$folder/env.sh" <<ENV
export PATH="$folder/rust/bin:$folder/zig/bin:\$PATH" RUSTC="$folder/rust/bin/rustc"
export CARGO_ZIGBUILD_ZIG_PATH="$folder/zig/venv/bin/python-zig"
ENV
