// Packs the client library with scripts/package.mjs, installs the package, and uses it as applications do: in Node as an ES
// module and as CommonJS, with TypeScript in each kind of module resolution, and through bundlers, whose bundles then
// exchange events with a server. Needs `npm ci` in this folder and in tests/clients/node, and a server, as tests/js.
//
// Bun is tested only if it is installed, because its package has 100 MB.

import assert from 'node:assert/strict'
import { execFile, execFileSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { promisify } from 'node:util'
import { checkPackage, createPackageFromTarballData } from '@arethetypeswrong/core'
import { nodeResolve } from '@rollup/plugin-node-resolve'
import esbuild from 'esbuild'
import Metro from 'metro'
import { publint } from 'publint'
import { rollup } from 'rollup'
import * as vite from 'vite'
import webpack from 'webpack'
import { Server, file } from '../../js/support/server.mjs'

const NAME = 'quickio-client'
const MINUTE = { timeout: 60_000 }
const BUNDLE_BYTES_MAX = 60_000 // minified; Metro also compiles classes. Polyfills would take hundreds of kilobytes
const run = promisify(execFile)
const here = createRequire(import.meta.url)
const tool = (name) => file(`tests/clients/package/node_modules/.bin/${name}`)

const folder = mkdtempSync(join(tmpdir(), 'quickio-package-'))
const installed = join(folder, 'node_modules', NAME)
let tarball
let server

/** Writes a file into the folder in which the package is installed. */
function write(name, text) {
  writeFileSync(join(folder, name), text)
  return join(folder, name)
}

// The program of each test: it uses the library over HTTP, which needs the most of the environment.
const program = (load) => `${load}
const client = new QuickIO('${server.url}', { transports: ['stream', 'poll'] })
client.send('/clienttest/echo', 'it works').then((text) => client.close().then(() => {
  console.log(text, client.transport, typeof globalThis.QuickIO)
}))
`
const PRINTED = 'it works null undefined\n'
const IMPORTS = {
  named: `import { QuickIO } from '${NAME}'`,
  default: `import QuickIO from '${NAME}'`,
  namespace: `import * as library from '${NAME}'; const { QuickIO } = library`
}
const REQUIRES = {
  named: `const { QuickIO } = require('${NAME}')`,
  default: `const QuickIO = require('${NAME}').default`
}

async function expectPrinted(program, args) {
  const { stdout } = await run(program, args, { cwd: folder, timeout: 30_000 })
  assert.equal(stdout, PRINTED)
}

/** Checks that a bundle contains the library and nothing else, and runs it. */
async function checkBundle(path) {
  const bundle = readFileSync(path, 'utf8')
  assert.ok(bundle.length < BUNDLE_BYTES_MAX, `${bundle.length} bytes`)
  assert.ok(!/node:|require\(["']/.test(bundle))
  await expectPrinted(process.execPath, [path])
}

before(async () => {
  execFileSync(process.execPath, [file('scripts/package.mjs'), join(folder, 'package')])
  const packed = execFileSync('npm', ['pack', '--json', '--pack-destination', folder], { cwd: join(folder, 'package') })
  tarball = join(folder, JSON.parse(packed)[0].filename)
  mkdirSync(installed, { recursive: true })
  execFileSync('tar', ['-xzf', tarball, '-C', installed, '--strip-components=1'])
  write('package.json', '{ "name": "application", "version": "1.0.0", "private": true }')
  server = await Server.start()
  server.url = `http://${server.address}`
}, MINUTE)

after(async () => {
  await server.stop()
  rmSync(folder, { recursive: true })
})

describe('the package', () => {
  test('has these files', () => {
    const names = ['LICENSE', 'README.md', 'index.d.mts', 'index.d.ts', 'index.js', 'index.mjs', 'package.json', 'quickio.js']
    assert.deepEqual(readdirSync(installed).sort(), names)
    const { version } = JSON.parse(readFileSync(join(installed, 'package.json')))
    assert.match(readFileSync(file('Cargo.toml'), 'utf8'), new RegExp(`^version = "${version}"$`, 'm'))
  })

  test('has no fault that publint knows', async () => {
    const { messages } = await publint({ pkgDir: installed, strict: true })
    assert.deepEqual(messages.map(({ code }) => code), [])
  })

  test('has types that agree with its modules', async () => {
    const { problems } = await checkPackage(createPackageFromTarballData(readFileSync(tarball)))
    assert.deepEqual(problems, [])
  })
})

describe('Node', () => {
  for (const [form, load] of Object.entries(IMPORTS)) {
    test(`import, ${form}`, MINUTE, () => expectPrinted(process.execPath, [write(`${form}.mjs`, program(load))]))
  }
  for (const [form, load] of Object.entries(REQUIRES)) {
    test(`require, ${form}`, MINUTE, () => expectPrinted(process.execPath, [write(`${form}.cjs`, program(load))]))
  }
})

describe('TypeScript', () => {
  const source = (load) => `${load}
interface Line { text: string }
const client: QuickIO = new QuickIO('wss://events.example.com', { transports: ['websocket'] as const, silenceTimeout: 1 })
client.on<Line>('/relay/room', (line) => line.text.length, (error: QuickIOError) => error.code.toFixed())
client.on('/open', (transport) => { const name: 'websocket' | 'stream' | 'poll' = transport; return name })
const sent: Promise<Line> = client.send<Line>('/a', { text: 'b' }, { timeout: 5, signal: new AbortController().signal })
const nothing: void = client.send('/a', (data, reply, code) => reply?.(code.toFixed(), (answer) => answer))
const closed: Promise<void> = client.close()
// @ts-expect-error: the timeout is a number
client.send('/a', 1, { timeout: '5' })
// @ts-expect-error: there is no such option
new QuickIO('wss://events.example.com', { timeout: 5 })
export { sent, nothing, closed }
`
  const named = `import { QuickIO, type QuickIOError } from '${NAME}'`
  const byDefault = `import QuickIO, { type QuickIOError } from '${NAME}'`
  const required = `import library = require('${NAME}')\nconst { QuickIO } = library\ntype QuickIO = library.QuickIO\ntype QuickIOError = library.QuickIOError`
  const cases = [
    ['nodenext', 'nodenext', 'mts', named], ['nodenext', 'nodenext', 'mts', byDefault],
    ['nodenext', 'nodenext', 'cts', named], ['nodenext', 'nodenext', 'cts', required],
    ['node16', 'node16', 'mts', named], ['node16', 'node16', 'cts', byDefault],
    ['esnext', 'bundler', 'ts', named], ['esnext', 'bundler', 'ts', byDefault],
    ['commonjs', 'node10', 'ts', named], ['commonjs', 'node10', 'ts', byDefault], ['commonjs', 'node10', 'ts', required]
  ]
  for (const [number, [module, moduleResolution, extension, load]] of cases.entries()) {
    test(`${module}, ${moduleResolution}, .${extension}: ${load.split('\n')[0]}`, MINUTE, async () => {
      const path = write(`types${number}.${extension}`, source(load))
      const flags = ['--module', module, '--moduleResolution', moduleResolution, '--target', 'es2022', '--strict', '--noEmit']
      await run(tool('tsc'), [...flags, '--lib', 'es2022,dom', path], { cwd: folder })
        .catch(({ stdout }) => assert.fail(stdout))
    })
  }
})

describe('bundles', () => {
  const entries = { 'entry-import.mjs': IMPORTS.named, 'entry-default.mjs': IMPORTS.default, 'entry-require.js': REQUIRES.named }
  const bundlers = {
    async esbuild(entry, out) {
      await esbuild.build({ entryPoints: [entry], outfile: out, bundle: true, platform: 'browser', minify: true })
    },
    async rollup(entry, out) {
      if (entry.endsWith('.js')) return false // it does not support CommonJS
      const bundle = await rollup({ input: entry, plugins: [nodeResolve({ browser: true })], onwarn: assert.fail })
      await bundle.write({ file: out, format: 'iife' })
      const minified = await esbuild.transform(readFileSync(out), { minify: true })
      writeFileSync(out, minified.code)
    },
    async webpack(entry, out) {
      const [path, filename] = [join(out, '..'), out.split('/').at(-1)]
      const config = { mode: 'production', target: 'web', context: folder, entry, output: { path, filename } }
      const stats = await promisify(webpack)(config)
      assert.deepEqual(stats.toJson().errors, [])
      assert.deepEqual(stats.toJson().warnings, [])
    },
    async vite(entry, out) {
      const lib = { entry, formats: ['iife'], name: 'application', fileName: () => out.split('/').at(-1) }
      const options = { outDir: join(out, '..'), lib, minify: true, emptyOutDir: false, copyPublicDir: false }
      await vite.build({ root: folder, configFile: false, logLevel: 'silent', build: options })
    },
    async parcel(entry, out) {
      const flags = ['--dist-dir', join(out, '..'), '--no-cache', '--no-source-maps', '--no-content-hash', '--log-level', 'error']
      // Parcel keeps the name of the entry.
      const copy = write(out.split('/').at(-1), readFileSync(entry))
      await run(tool('parcel'), ['build', copy, ...flags], { cwd: folder, env: { ...process.env, PARCEL_WORKERS: '0' } })
    },
    async metro(entry, out) {
      write('babel.config.json', JSON.stringify({ presets: [here.resolve('@react-native/babel-preset')] }))
      const config = await Metro.loadConfig({}, {
        projectRoot: folder,
        watchFolders: [file('tests/clients/package/node_modules')],
        resolver: { nodeModulesPaths: [file('tests/clients/package/node_modules')] },
        reporter: { update() {} },
        resetCache: true,
        maxWorkers: 1
      })
      await Metro.runBuild(config, { entry, out: out.replace(/\.js$/, ''), platform: 'ios', dev: false, minify: true })
    },
    async bun(entry, out) {
      const isInstalled = await run('bun', ['--version']).then(() => true, () => false)
      if (!isInstalled) return false
      // Its bundles in the format iife do not run entries that are CommonJS.
      const path = out.replace(/\.js$/, '.mjs')
      await run('bun', ['build', entry, '--outfile', path, '--minify', '--target', 'browser', '--format', 'esm'])
      await expectPrinted('bun', ['run', '--bun', entry])
      return path
    }
  }
  mkdirSync(join(folder, 'out'))
  for (const [name, bundle] of Object.entries(bundlers)) {
    for (const [entry, load] of Object.entries(entries)) {
      test(`${name}, ${entry}`, MINUTE, async (t) => {
        const out = join(folder, 'out', `${name}-${entry.replace(/\..*/, '')}.js`)
        const path = await bundle(write(`${name}-${entry}`, program(load)), out)
        if (path === false) return t.skip('not supported, or not installed')
        await checkBundle(path ?? out)
      })
    }
  }

  test('omit the library if nothing uses it', MINUTE, async () => {
    const entry = write('unused.mjs', `import { QuickIO } from '${NAME}'\n`)
    const { outputFiles } = await esbuild.build({ entryPoints: [entry], bundle: true, write: false, format: 'esm', minify: true })
    assert.equal(outputFiles[0].text.trim(), '')
  })
})
