// Tests in groups: the tests of a group one after the other, some groups at the same time, all of it bounded in time.

const GROUPS_AT_ONCE = 3
const TEST_MS = 60_000
const CLEANUP_MS = 20_000

const results = { passed: 0, failed: 0, skipped: 0 }
const groups = []

/**
 * A group of tests. `body` is called with the group's `test(name, run)`, which resolves to whether it passed, and
 * `after(run)`, for what is to be done at the end, last things first.
 */
export function group(name, body) {
  groups.push({ name, body })
}

/** Runs all groups whose name contains `filter`; resolves to the numbers of tests. */
export async function runGroups(filter = '') {
  const left = groups.filter(({ name }) => name.includes(filter))
  const worker = async () => {
    while (left.length) await runGroup(left.shift())
  }
  await Promise.all(Array.from({ length: GROUPS_AT_ONCE }, worker))
  return results
}

async function runGroup({ name, body }) {
  const begun = Date.now()
  const endings = []
  const test = (title, run) => check(`${name}: ${title}`, TEST_MS, run)
  test.skip = (title, why) => {
    results.skipped++
    console.log(`skipped  ${name}: ${title} (${why})`)
  }
  // What a group does between its tests is a test only where it fails.
  await silently(`${name}: around its tests`, () => body({ test, after: (run) => endings.unshift(run) }))
  for (const ending of endings) {
    await silently(`${name}: its end`, () => within(CLEANUP_MS, ending()))
  }
  console.log(`         ${name}: ${((Date.now() - begun) / 1000).toFixed(1)} s`)
}

async function check(title, ms, run) {
  const begun = Date.now()
  try {
    await within(ms, run())
  } catch (error) {
    return fail(title, error)
  }
  results.passed++
  console.log(`ok       ${title} (${Date.now() - begun} ms)`)
  return true
}

async function silently(title, run) {
  try {
    await run()
  } catch (error) {
    fail(title, error)
  }
}

function fail(title, error) {
  results.failed++
  console.log(`FAILED   ${title}\n${String(error?.stack ?? error).replace(/^/gm, '           ')}`)
  return false
}

export async function within(ms, promise, what = 'an end') {
  let timer
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`waited ${ms} ms for ${what}`)), ms)
  })
  try {
    return await Promise.race([promise, late])
  } finally {
    clearTimeout(timer)
  }
}
