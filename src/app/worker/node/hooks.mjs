// Module hooks that resolve `import 'quickio'` to this package for scripts in any folder. Before Node 22.15 such
// hooks run on a thread of their own, so they report the URLs that they have resolved over a port. In even older
// versions they have to be enabled by a flag.

const HOME = new URL('./index.js', import.meta.url).href

/** The name of the global list of resolved URLs, for hooks that run on the script's thread. */
export const RESOLVED = Symbol.for('quickio.resolved')

let report = (url) => {
  if (globalThis[RESOLVED]) globalThis[RESOLVED].push(url)
}

/** Called by Node. There is no port if the hooks were enabled by the flag in a newer version of Node. */
export function initialize({ port } = {}) {
  report = (url) => port?.postMessage(url)
}

export async function resolve(specifier, context, next) {
  if (specifier === 'quickio') return { url: HOME, format: 'module', shortCircuit: true }
  const found = await next(specifier, context)
  report(found.url)
  return found
}
