// The types for `import`, which are the same as for `require`. TypeScript needs a file for each.
export * from './index.cjs'
