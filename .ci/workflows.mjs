// `npm run check:workflows`: actionlint over .github/workflows, with shellcheck for the commands in them.
import { spawnSync } from 'node:child_process'
import path from 'node:path'
import process from 'node:process'
import { prepareEnvironment, root } from './prerequisites.mjs'

const list = path.join(root, '.ci', 'workflows.txt')
const { python, reason } = prepareEnvironment('workflows', list, 'actionlint')
if (reason === undefined) {
  const program = (name) => path.join(path.dirname(python), name)
  // Said, because it would take what it finds on the machine.
  const lints = ['-shellcheck', program('shellcheck'), '-pyflakes', '']
  const { status } = spawnSync(program('actionlint'), ['-no-color', ...lints], {
    cwd: root,
    stdio: 'inherit',
  })
  process.exitCode = status ?? 1
} else {
  console.log(`skipped: ${reason}`)
}
