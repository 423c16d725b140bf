// A test harness. The tests of a group run one after the other, several groups run in parallel, and everything has a time
// limit.

const GROUPS_AT_ONCE = 3
const TEST_MS = 60_000
const CLEANUP_MS = 20_000

const results = { passed: 0, failed: 0, skipped: 0 }
const groups = []

/**
 * Registers a group of tests. Calls `body` with `test(name, run)`, which resolves to whether the test passed, and
 * `after(run)`, which registers a cleanup function. Cleanup functions run in reverse order.
 */
export function group(name, body) {
  groups.push({ name, body })
}

/** Runs all groups whose names contain `filter`. Resolves to the numbers of tests. */
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
  const cleanups = []
  const test = (title, run) => check(`${name}: ${title}`, TEST_MS, run)
  test.skip = (title, why) => {
    results.skipped++
    console.log(`skipped  ${name}: ${title} (${why})`)
  }
  // The code of a group outside its tests counts only if it fails.
  await silently(`${name}: outside its tests`, () => body({ test, after: (run) => cleanups.unshift(run) }))
  for (const cleanup of cleanups) {
    await silently(`${name}: cleanup`, () => within(CLEANUP_MS, cleanup()))
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

/** Resolves or rejects with `promise`, or rejects after `ms` milliseconds. */
export async function within(ms, promise, what = 'the end') {
  let timer
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`timed out after ${ms} ms waiting for ${what}`)), ms)
  })
  try {
    return await Promise.race([promise, late])
  } finally {
    clearTimeout(timer)
  }
}
