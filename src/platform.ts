// Which package holds the addon for this platform, and why the addon could not be had, in one sentence.

interface Manifest {
  name: string
  version: string
}

/** package.json of this package. */
export const { name, version } = require('../package.json') as Manifest

/** Each has a folder under npm/. ARM of 32 bits is ARMv7 with hardware floating point. */
const PLATFORMS = [
  'linux-x64-gnu',
  'linux-x64-musl',
  'linux-arm64-gnu',
  'linux-arm64-musl',
  'linux-arm-gnueabihf',
  'darwin-x64',
  'darwin-arm64',
  'win32-x64-msvc',
]

/** The name by which the packages call this platform. */
function platform(): string {
  const { platform, arch } = process
  if (platform === 'win32') return `${platform}-${arch}-msvc`
  if (platform !== 'linux') return `${platform}-${arch}`
  // Node.js names the version of glibc where it runs with it. Addresses of the network take long to look up.
  const report = process.report as typeof process.report & { excludeNetwork?: boolean }
  const { excludeNetwork } = report
  report.excludeNetwork = true
  const { header } = report.getReport() as { header: { glibcVersionRuntime?: string } }
  if (excludeNetwork !== undefined) report.excludeNetwork = excludeNetwork
  const libc = header.glibcVersionRuntime === undefined ? 'musl' : 'gnu'
  return `${platform}-${arch}-${libc}${arch === 'arm' ? 'eabihf' : ''}`
}

/** The package that holds the addon here; undefined where there is none. */
function platformPackage(): string | undefined {
  const here = platform()
  return PLATFORMS.includes(here) ? `${name}-${here}` : undefined
}

const AGAIN = `run "npm install ${name}@${version}" on this machine, optional dependencies included`

/** Why loading the addon ended with `error`. */
export function loadFailure(error: unknown): string {
  const wanted = platformPackage()
  if (wanted === undefined) {
    return `${name} has no binary for ${platform()}: there is one for ${PLATFORMS.join(', ')}`
  }
  const reason = unloadable(error)
  if (reason !== undefined) {
    const remedy = reason.includes('GLIBC_') ? 'the C library of this system is older than it needs' : AGAIN
    return `the binary in ${wanted} cannot be loaded (${reason}): ${remedy}`
  }
  if (isInstalled(wanted)) {
    return `${wanted} is installed and the binary in it is not looked for: this Node.js is for another C library than the system’s`
  }
  return `${wanted} is not installed, the package with the binary of ${name} for this platform: ${AGAIN}`
}

function isInstalled(wanted: string): boolean {
  try {
    require.resolve(wanted)
    return true
  } catch {
    return false
  }
}

/** Why an addon of another version is not taken. */
export function versionFailure(found: string): string {
  return `${name} ${version} found a binary of version ${found} for ${platform()}: ${AGAIN}`
}

/** What the loader says of a binary that was there; undefined if it found none. */
function unloadable(error: unknown): string | undefined {
  // It looks in several places and gives what it met in each, one the cause of the other, under a text of its own.
  const first: unknown = error instanceof Error ? (error.cause ?? error) : undefined
  for (let cause: unknown = first; cause instanceof Error; cause = cause.cause) {
    if (!cause.message.startsWith('Cannot find module ')) return cause.message.split('\n')[0]
  }
  return undefined
}
