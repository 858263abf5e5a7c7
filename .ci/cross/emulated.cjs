// Loaded before the program where Node.js itself is emulated: what it starts as "this Node.js" has to be started
// through the emulator too, which ELBUS_EMULATOR names with its arguments.
const [emulator, ...args] = JSON.parse(process.env.ELBUS_EMULATOR)
// child_process.fork puts these before the program.
process.execArgv.unshift(...args, process.execPath)
process.execPath = emulator
