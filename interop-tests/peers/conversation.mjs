// The conversation between a script and whoever started it, over stdin and stdout.
//
// Usage: node SCRIPT.mjs TREE ...
//   TREE     folder with package.json and node_modules (../vectors or ../legacy)
//
// One JSON object a line comes on stdin: {"id":1,"do":"put","path":"/a","text":"hello"}.
// Each is answered once, in any order: {"id":1,"ok":…} or {"id":1,"error":"…"}.
// Lines with "event" and no "id" come unasked. End of stdin ends the process, so no script outlives its starter.

import { createRequire } from 'node:module'
import { createInterface } from 'node:readline'
import path from 'node:path'

/** `require` as seen from the chosen npm tree. */
export const load = createRequire(path.resolve(process.argv[2], 'package.json'))

/** Answers commands until stdin ends. */
export function serve (commands) {
  createInterface({ input: process.stdin })
    .on('line', (line) => answer(commands, JSON.parse(line)))
    .on('close', () => process.exit(0))
  tell({ event: 'started', node: process.version, hypercore: load('hypercore/package.json').version })
}

/** Sends one line. */
export function tell (message) {
  process.stdout.write(JSON.stringify(message) + '\n')
}

async function answer (commands, { id, do: name, ...args }) {
  try {
    const command = commands[name]
    if (!command) throw new Error(`no such command: ${name}`)
    tell({ id, ok: (await command(args)) ?? null })
  } catch (err) {
    tell({ id, error: err.message })
  }
}
