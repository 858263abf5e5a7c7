// A registry on loopback that holds the packed tarballs and nothing else: an install that needs more fails.
import { createHash } from 'node:crypto'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { createServer } from 'node:http'
import path from 'node:path'
import { root } from '../prerequisites.mjs'
import { must } from './environment.mjs'

/** Serves these tarballs; `{ url, close }`. */
export async function startRegistry(tarballs) {
  const packages = new Map()
  const contents = new Map()
  const server = createServer((request, response) => {
    const asked = decodeURIComponent(request.url).slice(1)
    const found = contents.get(asked) ?? packages.get(asked)
    response.statusCode = found ? 200 : 404
    response.end(found instanceof Buffer ? found : JSON.stringify(found ?? { error: `no ${asked}` }))
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const url = `http://127.0.0.1:${server.address().port}`
  for (const file of tarballs) {
    const manifest = JSON.parse(await must('tar', ['-xzOf', file, 'package/package.json']))
    const content = readFileSync(file)
    const at = `files/${path.basename(file)}`
    contents.set(at, content)
    const integrity = `sha512-${createHash('sha512').update(content).digest('base64')}`
    packages.set(manifest.name, {
      name: manifest.name,
      'dist-tags': { latest: manifest.version },
      versions: { [manifest.version]: { ...manifest, dist: { tarball: `${url}/${at}`, integrity } } },
    })
  }
  const close = () => {
    server.closeAllConnections()
    server.close()
  }
  return { url, close }
}

/** The tarball of the one package that ours depends on, as it is installed here. */
export async function msgpack(out) {
  const place = path.join(root, 'node_modules', '@msgpack', 'msgpack')
  const options = ['--json', '--loglevel=error', '--ignore-scripts', '--pack-destination', out]
  const said = await must('npm', ['pack', ...options], { cwd: place })
  return path.join(out, JSON.parse(said.slice(said.indexOf('[')))[0].filename)
}
