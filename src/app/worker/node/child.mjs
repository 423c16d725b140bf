// Loaded first by the threads and forked processes of an application.

import { hookChildren, hookImport } from './resolve.mjs'

hookImport()
hookChildren()
