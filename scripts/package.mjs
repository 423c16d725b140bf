#!/usr/bin/env node
// Assembles the npm package of the client library.
//
//   scripts/package.mjs [FOLDER]          the default folder is target/npm/quickio-client
//
// `npm pack` or `npm publish` in that folder does the rest. The package has the library as an ES module (index.mjs), as
// CommonJS (index.js), each with its types, and as the classic script that the server delivers (quickio.js). The first two
// define no global variable. Their default server is that of the page, not that of the bundle they are part of.

import { cpSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'

const file = (path) => fileURLToPath(new URL(`../${path}`, import.meta.url))
const read = (path) => readFileSync(file(path), 'utf8')
const folder = process.argv[2] ?? file('target/npm/quickio-client')

/** Replaces the only occurrence of a text. */
function replace(text, old, replacement) {
  const parts = text.split(old)
  if (parts.length !== 2) throw new Error(`the library contains ${parts.length - 1} times, not once: ${old}`)
  return parts.join(replacement)
}

/** Returns the library as a module that ends in `exports`. */
function moduleOf(script, exports) {
  const [body] = script.split("\nif (typeof module === 'object'")
  const named = replace(body, '\nglobalThis.QuickIO = ', '\nconst QuickIO = ')
  return replace(named, 'static source = globalThis.document?.currentScript?.src', 'static source = undefined') + exports
}

const script = read('src/web/quickio.js')
const types = read('src/web/quickio.d.ts').split('\ntype Library = ')[0]
const settings = JSON.parse(read('src/web/package.json'))
const [, version] = read('Cargo.toml').match(/^version = "(.*)"$/m)

rmSync(folder, { recursive: true, force: true })
mkdirSync(folder, { recursive: true })
const files = {
  'package.json': `${JSON.stringify({ ...settings, version }, null, 2)}\n`,
  'index.mjs': moduleOf(script, '\nexport { QuickIO }\nexport default QuickIO\n'),
  'index.js': moduleOf(script, "\nObject.defineProperty(exports, '__esModule', { value: true })\nexports.QuickIO = exports.default = QuickIO\n"),
  'index.d.ts': types,
  'index.d.mts': types,
  'quickio.js': script,
  'README.md': read('src/web/package.md')
}
for (const [name, text] of Object.entries(files)) writeFileSync(`${folder}/${name}`, text)
cpSync(file('LICENSE'), `${folder}/LICENSE`)
console.log(folder)
