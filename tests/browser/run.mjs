import { launch } from './support/browser.mjs'
import { runGroups } from './support/harness.mjs'
import { plain } from './suite.mjs'
const browser = await launch()
plain(browser)
const r = await runGroups(process.argv[2])
await browser.close()
console.log(r)
