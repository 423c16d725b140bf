// Has `import 'quickio'` find this package, wherever the script lies. Before Node 22.15 such hooks run in a thread of
// their own (or, long before, are a flag), and tell what they have resolved over a port.

const HOME = new URL('./index.js', import.meta.url).href

/** Where hooks run in the thread of the script, they leave it here. */
export const RESOLVED = Symbol.for('quickio.resolved')

let tell = (url) => {
  if (globalThis[RESOLVED]) globalThis[RESOLVED].push(url)
}

/** Where it is the flag that has a newer Node take them, there is no port. */
export function initialize({ port } = {}) {
  tell = (url) => port?.postMessage(url)
}

export async function resolve(specifier, context, next) {
  if (specifier === 'quickio') return { url: HOME, format: 'module', shortCircuit: true }
  const found = await next(specifier, context)
  tell(found.url)
  return found
}
