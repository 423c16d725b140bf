// The same for `import` as for `require`: TypeScript wants it said.
export * from './index.cjs'
