// Objects over a socket, a line of JSON each: how a measurement speaks to a program it did not start itself.

/** Calls `taken` with each object. */
export function readLines(socket, taken) {
  let rest = ''
  socket.setEncoding('utf8').on('data', (text) => {
    const lines = (rest + text).split('\n')
    rest = lines.pop()
    for (const line of lines) taken(JSON.parse(line))
  })
}

/** Sends one. */
export function writeLine(socket, object) {
  socket.write(`${JSON.stringify(object)}\n`)
}
